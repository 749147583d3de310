"""The policy of a run, opened for export: proven to be the trained one, then held exactly, in fp32 arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.config import Precision, RunConfig, from_json
from rlvr_lite.errors import UserError
from rlvr_lite.records import RunDirectory, damage, read_json, refuse_pickles

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

__all__ = ["RunFacts", "Trained", "load_base", "load_trained", "quietly", "read_run"]


@dataclass(frozen=True)
class RunFacts:
    """What a run's files say of it; no weights.

    Attributes:
        files: of the run.
        config: what was run, every field filled in.
        summary: its outcome.
        adapter: what ``rlvr_lite.json`` beside the adapter says.
        doubt: why its proof failed; empty for a proven run.
    """

    files: RunDirectory
    config: RunConfig
    summary: Mapping[str, Any]
    adapter: Mapping[str, Any]
    doubt: str = ""

    @property
    def precision(self) -> Precision:
        """In which the base is loaded; of ``full`` every weight is in the adapter, in fp32."""
        return "fp32" if self.config.method == "full" else self.config.precision

    @property
    def base(self) -> dict[str, Any]:
        """Name, revision, hash and precision of the base, enough to find it again and to know it."""
        recorded = read_json(self.files.env)["base"]
        revision = self.config.revision or (recorded["revision"] if _on_hub(self.config.base) else None)
        return {
            "name": self.config.base,
            "revision": revision,
            "hash": self.adapter["base"]["hash"],
            "precision": self.precision,
        }


def _on_hub(name: str) -> bool:
    from rlvr_lite import bases

    return name not in bases.EMBEDDED and not Path(name).expanduser().exists()


def read_run(run: Any, *, force: bool = False) -> RunFacts:
    """What is known of a run before its weights are loaded.

    Args:
        run: a ``Run`` or its directory.
        force: also take one whose proof failed.

    Raises:
        UserError: there is no run, it is not finished, its proof failed, or its adapter is damaged.
    """
    path = Path(getattr(run, "directory", run))
    files = RunDirectory(path)
    if not files.config.is_file():
        raise UserError(f"{path} is not a run: it has no config.json")
    config = from_json(RunConfig, files.config.read_text(encoding="utf-8"))
    summary = read_json(files.summary) if files.summary.exists() else {"status": "running"}
    doubt = ""
    if summary["status"] == "failed":
        doubt = str(summary.get("reason") or summary.get("identity"))
        if not force:
            raise UserError(f"{path} failed its proof ({doubt}): train it again, or take it marked as failed (force)")
    elif summary["status"] != "done":
        raise UserError(f"{path} is not finished ({summary['status']}): repeat the call that began it")
    if not files.adapter.is_dir():
        raise UserError(f"{path} has no adapter: train it again")
    refuse_pickles(files.adapter)
    broken = damage(files.adapter)
    if broken:
        raise UserError(f"the adapter of {path} is damaged ({broken}): copy or train it again")
    return RunFacts(files, config, summary, read_json(files.adapter / "rlvr_lite.json"), doubt)


@dataclass
class Trained:
    """The trained policy in memory, in fp32 arithmetic on exactly the weights that were trained.

    Attributes:
        run: where it comes from.
        model: the base with its method attached; on a 4-bit base with the dequantised weights.
        tokenizer: of the base.
        parity: distance of the reloaded policy to the trained one, relative to the largest logit; ``None`` if the run
            recorded no fingerprint.
    """

    run: RunFacts
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    parity: float | None
    _base: nn.Module | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def before(self) -> Iterator[nn.Module]:
        """The policy before training; without a second copy of the base, unless training changed the base itself."""
        from rlvr_lite import methods

        if self.run.config.method == "full":
            if self._base is None:
                self._base = load_base(self.run.base)[0]
            yield self._base
        else:
            with methods.disabled(self.model):
                yield self.model


def load_trained(run: RunFacts) -> Trained:
    """The policy of a run, on the CPU: a 7B base in fp32 fits the memory of no consumer card.

    Raises:
        UserError: the base is gone or was changed, or the policy answers otherwise than the trained one did.
    """
    from rlvr_lite import methods
    from rlvr_lite.evaluation.policies import fingerprint_distance

    base, tokenizer = load_base(run.base, exact=False)
    recorded = run.adapter["facts"].get("fingerprint")
    away = fingerprint_distance(base, tokenizer, recorded) if recorded and run.precision != "fp32" else None
    model = methods.load(base, run.files.adapter)
    parity = _parity(run, model, tokenizer, recorded, away)
    if methods.precision_of(model) == "nf4":
        model = methods.load(_dequantised(methods.detach(model)).float(), run.files.adapter)
    return Trained(run, model if run.config.method == "full" else model.float(), tokenizer, parity)


def _parity(run: RunFacts, model: Any, tokenizer: Any, recorded: Any, away: float | None) -> float | None:
    from rlvr_lite.evaluation import check_fingerprint
    from rlvr_lite.evaluation.policies import fingerprint_distance

    if recorded is None:
        return None
    if run.doubt:  # known to have failed, and taken all the same
        return fingerprint_distance(model, tokenizer, recorded)
    return check_fingerprint(model, tokenizer, recorded, base_distance=away)


def load_base(about: Mapping[str, Any], *, exact: bool = True) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The base of a run, on the CPU, with its tokenizer.

    Args:
        about: name, revision, hash and precision.
        exact: as plain fp32 weights with the values they had in that precision.

    Raises:
        UserError: it is gone, or is not the one that was trained on.
    """
    from rlvr_lite import bases, methods

    try:
        found = bases.load(about["name"], about["precision"], revision=about["revision"], device="cpu")
    except UserError as error:
        raise UserError(f"the base of this run cannot be loaded: {error}") from error
    if methods.base_hash(found.model) != about["hash"]:
        raise UserError(
            f"base {about['name']} is not the one that was trained on (its hash is not {about['hash'][:12]}): put that "
            "one back, or train again on this"
        )
    return _dequantised(found.model).float() if exact else found.model, found.tokenizer


def _dequantised(model: Any) -> Any:
    """Plain linear layers with what the 4-bit ones stand for; other models as they are."""
    from rlvr_lite import methods

    return model.dequantize() if methods.precision_of(model) == "nf4" else model


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what transformers says of files it loads and writes, which here are several an export."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

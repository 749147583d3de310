"""The policy of a run, opened for export: proven to be the trained one, then held exactly, in fp32 arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite import methods
from rlvr_lite.config import Precision
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.runs import RunRecord

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rlvr_lite.analysis.spectrum import Update
    from rlvr_lite.bases import Base

__all__ = [
    "Trained",
    "base_in_training",
    "base_of",
    "load_base",
    "load_trained",
    "precision_of",
    "quietly",
    "updates_of",
]


def precision_of(run: RunRecord) -> Precision:
    """In which the base of a run is loaded; where the base itself is trained, all its weights are in the run, in fp32."""
    return "fp32" if methods.get(run.config.method).trains_base else run.config.precision


def base_of(run: RunRecord) -> dict[str, Any]:
    """Name, revision, hash and precision of the base of a run, enough to find it again and to know it."""
    config, files = run.config, run.files
    with as_written(files.env):
        revision = config.revision or (run.env["base"]["revision"] if _on_hub(config.base) else None)
    with as_written(files.adapter):
        found = run.adapter["base"]["hash"]
    return {"name": config.base, "revision": revision, "hash": found, "precision": precision_of(run)}


def _on_hub(name: str) -> bool:
    from rlvr_lite import bases

    return name not in bases.EMBEDDED and not Path(name).expanduser().exists()


def updates_of(run: RunRecord) -> Iterator[Update]:
    """What training changed, tensor by tensor, for the spectrum.

    Raises:
        UserError: the run is not finished, failed its proof, is damaged, or its base is another now.
    """
    original = base_in_training(run).model if methods.get(run.gate().config.method).writes_base else None
    yield from methods.updates(methods.load(base_in_training(run).model, run.files.adapter), original)


def base_in_training(run: RunRecord) -> Base:
    """The base as training loaded it: the same precision, backend and revision."""
    from rlvr_lite import bases

    config = run.config
    return bases.load_for(config)


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

    run: RunRecord
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    parity: float | None
    _base: nn.Module | None = field(default=None, repr=False)

    @contextlib.contextmanager
    def before(self) -> Iterator[nn.Module]:
        """The policy before training; without a second copy of the base, unless training changed the base itself."""
        if methods.get(self.run.config.method).trains_base:
            if self._base is None:
                self._base = load_base(base_of(self.run))[0]
            yield self._base
        else:
            with methods.disabled(self.model):
                yield self.model


def load_trained(run: RunRecord) -> Trained:
    """The policy of a run, on the CPU: a 7B base in fp32 fits the memory of no consumer card.

    Raises:
        UserError: the base is gone or was changed, or the policy answers otherwise than the trained one did.
    """
    from rlvr_lite.evaluation import fingerprint_distance, recorded_fingerprint

    base, tokenizer = load_base(base_of(run), exact=False)
    recorded = recorded_fingerprint(run.files.adapter)
    away = fingerprint_distance(base, tokenizer, recorded) if recorded and precision_of(run) != "fp32" else None
    model = methods.load(base, run.files.adapter)
    parity = _parity(run, model, tokenizer, recorded, away)
    if methods.precision_of(model) == "nf4":
        model = methods.load(_dequantised(methods.detach(model)).float(), run.files.adapter)
    return Trained(run, model if methods.get(run.config.method).trains_base else model.float(), tokenizer, parity)


def _parity(run: RunRecord, model: Any, tokenizer: Any, recorded: Any, away: float | None) -> float | None:
    from rlvr_lite.evaluation import check_fingerprint, fingerprint_distance

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

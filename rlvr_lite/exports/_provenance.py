"""What an export says of itself, and the proof that it still is the policy of its run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.errors import UserError, as_written, first_line
from rlvr_lite.exports._gguf_file import read_gguf
from rlvr_lite.exports._reference import Distance, Reference, logits, stored_distance
from rlvr_lite.exports._trained import load_base, quietly
from rlvr_lite.records import damage, is_file, read_json, refuse_pickles

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

__all__ = ["EXPORT_FILE", "REFERENCE_FILE", "Verification", "load_export", "open_form", "verify_export"]

EXPORT_FILE = "export.json"
REFERENCE_FILE = "reference.json"
#: Relative difference of logits that another machine's rounding in fp32 may make.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Verification:
    """Whether an export is what it says.

    Attributes:
        directory: of the export.
        proven: whether it is.
        reason: why not; empty if it is.
        exact: whether it answers as the trained policy up to rounding; otherwise what it lost is what it says.
        distance: to the trained policy's stored answers; ``None`` if it could not be loaded.
    """

    directory: Path
    proven: bool
    reason: str
    exact: bool = False
    distance: Distance | None = None

    def __str__(self) -> str:
        if not self.proven:
            return f"{self.directory}: not proven: {self.reason}"
        assert self.distance is not None
        kind = "the trained policy" if self.exact else "the trained policy less what was lost when it was made"
        return (
            f"{self.directory}: proven: {kind}; logits differ by at most {self.distance.logits:.2g} "
            f"({self.distance.relative:.1g} of the largest), {self.distance.greedy:.1%} of the greedy tokens are the same"
        )


def load_export(directory: str | Path) -> tuple[nn.Module, PreTrainedTokenizerBase | None]:
    """An export as others would load it, on the CPU in fp32: an adapter through plain PEFT on its base.

    Raises:
        UserError: this is no export, its base is gone or was changed, or a file cannot be read.
    """
    path, facts = _opened(directory)
    with as_written(path / EXPORT_FILE, "export again"):
        base = {key: facts["base"][key] for key in ("name", "revision", "hash", "precision")}
        if not all(isinstance(value, str) for key, value in base.items() if key != "revision"):
            raise TypeError("a base without a name, a hash or a precision")
        facts = {**facts, "form": facts["form"], "base": base}
    with quietly():
        return open_form(path, facts)


def _opened(directory: str | Path) -> tuple[Path, dict[str, Any]]:
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give the directory of an export")
    if not is_file(path / EXPORT_FILE):
        raise UserError(f"{path} is no export: it has no {EXPORT_FILE}")
    refuse_pickles(path)
    return path, read_json(path / EXPORT_FILE)


def open_form(path: Path, facts: Mapping[str, Any]) -> tuple[nn.Module, PreTrainedTokenizerBase | None]:
    """The policy in a directory, by the form that ``facts`` name."""
    from rlvr_lite import bases

    form = facts["form"]
    if form == "merged":
        found = bases.load(str(path), "fp32", device="cpu")
        return found.model, found.tokenizer
    if form == "gguf":
        return read_gguf(path / facts["file"])
    from rlvr_lite.evaluation import open_stranger

    base, tokenizer = load_base(facts["base"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT to its developers, and of AdaLoRA's empty layers
        try:
            return open_stranger(base, path, str(facts["base"]["name"]), ours=True), tokenizer
        except UserError as error:  # such as of BOFT, of which PEFT leaves out what it cannot compile
            raise UserError(f"{error}; export the run again, or to merged") from error


def verify_export(directory: str | Path) -> Verification:
    """Prove that an export is the policy of its run: every file unchanged, and the same answers to fixed prompts.

    When it was made, the logits of the trained policy were stored, and those of the export itself, which are the same
    unless it lost something on the way (16 bits, a lower rank). It has to give its own again, up to rounding.

    Args:
        directory: of the export; the run is not needed, and of an adapter the base is.

    Raises:
        UserError: this is no export, or its base cannot be loaded, so that nothing can be said.
    """
    path, facts = _opened(directory)
    broken = damage(path)
    if broken:
        return Verification(path, False, broken)
    import torch

    reference = Reference.from_dict(read_json(path / REFERENCE_FILE))
    model, tokenizer = load_export(path)
    if facts.get("tokenizer") == "same" and tokenizer is not None and not same_tokens(reference, tokenizer):
        return Verification(path, False, "its tokenizer cuts the prompts otherwise than in training")
    try:
        rows = logits(model, reference.ids, reference.answers)
        drift = stored_distance(reference, reference.held, rows).relative
        away = stored_distance(reference, reference.values, rows)
    except torch.OutOfMemoryError:  # says nothing of the export
        raise
    except (ValueError, TypeError, LookupError, RuntimeError) as error:  # such as of NaN, or of no tokens of this model
        return Verification(path, False, first_line(error))
    reason = ""
    if not drift <= ROUNDING:  # NaN is within no limit
        reason = f"its logits differ from those it had when it was made by {drift:.2g} of the largest"
    return Verification(path, not reason, reason, away.relative <= ROUNDING, away)


def same_tokens(reference: Reference, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer cuts the prompts as they were cut in training."""
    cut = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in reference.prompts]
    return cut == list(reference.ids)

"""A byte-level BPE tokenizer as the metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlvr_lite.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Vocabulary", "vocabulary"]

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: How llama.cpp calls a way to cut text before the merges: by what stands in tokenizer.json.
_CUTS = {
    (_QWEN2,): "qwen2",
    (_QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),): "llama-bpe",
    ("digits", "bytes"): "smollm",
    ("bytes",): "gpt-2",
}
# In the byte-level alphabet these stand for the bytes 0xFE and 0xFF, which no UTF-8 text contains.
_NEVER = ("þ", "ÿ")


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes:
        tokens: by id, one for each row of the embedding.
        types: of each token: 1 normal, 3 control, 4 user-defined, 5 unused.
        merges: ``"left right"``, by rank.
        cut: llama.cpp's name of the split before the merges.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    cut: str


def vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """Read a fast tokenizer.

    Args:
        tokenizer: a byte-level BPE.
        rows: of the embedding; ids beyond the tokenizer's are filled with unused tokens.

    Raises:
        UserError: it is of another kind, or cuts text in a way llama.cpp has no name for.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    stored: Any = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "slow"}}
    model = stored["model"]
    cut = _CUTS.get(_shape_of(stored.get("pre_tokenizer")))
    if model["type"] != "BPE" or model.get("byte_fallback") or cut is None:
        raise UserError(
            "this tokenizer is not one of the byte-level BPEs that are converted here (Qwen 2 and 3, Llama 3, SmolLM, "
            "GPT-2): give llama_cpp, the folder of llama.cpp, whose converter knows more"
        )
    tokens, types = [f"[PAD{i}]" for i in range(rows)], [_UNUSED] * rows
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, _NORMAL
    for added in stored["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return Vocabulary(tokens, types, merges or _idle_merges(tokens, types), cut)


def _shape_of(stored: Any) -> tuple[str, ...]:
    """A pre-tokenizer by what it does: its regular expression, or the names of its steps."""
    steps: Sequence[Any] = [] if stored is None else stored.get("pretokenizers", [stored])
    names = []
    for step in steps:
        if step["type"] == "Split":
            names.append(step["pattern"].get("Regex", ""))
        elif step["type"] == "Digits" and step["individual_digits"]:
            names.append("digits")
        elif step["type"] == "ByteLevel":
            names += ["bytes"] if step["use_regex"] else []
        else:
            return ()
    return tuple(names)


def _idle_merges(tokens: list[str], types: list[int]) -> list[str]:
    """Two merges that never apply, for a vocabulary without any: llama.cpp refuses a file with none.

    Two, because readers of metadata may take a list of one for its only item (transformers 5.17 does). They need four
    tokens, and without merges every longer token that is matched in no other way is free.
    """
    pairs = [_NEVER, _NEVER[::-1]]
    needed = [*_NEVER, *map("".join, pairs)]
    free = [i for i, token in enumerate(tokens) if types[i] in (_NORMAL, _UNUSED) and len(token) > 1]
    if len(free) < len(needed):
        raise UserError("a GGUF file needs a tokenizer with merges, and this one has none and no spare tokens")
    for i, token in zip(free[-len(needed) :], needed, strict=True):
        tokens[i], types[i] = token, _NORMAL
    return list(map(" ".join, pairs))

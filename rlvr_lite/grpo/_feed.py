"""One way of calling a backbone, whatever arguments its architecture knows."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import Tensor

__all__ = ["cache_name", "feed", "takes"]

_STATES = ("Mamba", "xLSTM")  # their ``cache_params`` is a ``cache`` like any other from transformers 5.24 on


@cache
def _arguments(kind: Any) -> frozenset[str]:
    """Of the forward of a class, or of the class below it whose arguments a forward that names none passes on."""
    forwards = (vars(each)["forward"] for each in kind.__mro__ if "forward" in vars(each))
    named = (frozenset(inspect.signature(forward).parameters) for forward in forwards)
    return next((names for names in named if "input_ids" in names), frozenset())


def takes(backbone: Any, name: str) -> bool:
    """Whether the forward of a backbone names that argument; one that names nothing at all is taken at its word."""
    kind: Any = type(backbone)
    named = _arguments(kind)
    return name in named or not named


def cache_name(backbone: Any) -> str | None:
    """What the forward of a backbone calls its cache: ``cache`` from transformers 5.24 on; ``None`` if it takes none."""
    names = ("past_key_values", "cache", "cache_params")
    return next((name for name in names if takes(backbone, name)), None)


def feed(backbone: Any, ids: Tensor, mask: Tensor | None = None, position: Tensor | None = None, **more: Any) -> Tensor:
    """Last hidden states ``[B, T, H]``.

    Positions go only to architectures that take them: the others count them from the mask themselves, or know none.

    Args:
        backbone: of a causal language model.
        ids: int64 ``[B, T]``.
        mask: ``[B, S]`` of the tokens cached and of these.
        position: int64 ``[B, T]``.
        **more: such as ``past_key_values``.
    """
    given = {"attention_mask": mask, "position_ids": position} | ({"use_cache": False} | more)
    if "past_key_values" in given:
        name = cache_name(backbone) or "past_key_values"
        given[name] = given.pop("past_key_values")
        states = name == "cache_params" or any(kind in type(backbone).__name__ for kind in _STATES)
        if states and mask is not None and mask.shape != ids.shape:
            given["attention_mask"] = None  # of what it has read a state is left, and nothing to be masked
    known = {k: v for k, v in given.items() if v is not None and takes(backbone, k)}
    return backbone(input_ids=ids, **known).last_hidden_state

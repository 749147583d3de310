"""Reward functions in TRL's signature: ``f(completions, **columns) -> list[float | None]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlvr_lite.errors import unknown_name
from rlvr_lite.rewards.verify import verify_batch

__all__ = ["RewardFunction", "accuracy", "get", "text_of"]

RewardFunction = Callable[..., "list[float | None]"]


def text_of(completion: Any) -> str:
    """The text of a completion: a string as it is, the contents of a list of chat messages joined."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Sequence):
        return "".join(str(message.get("content") or "") for message in completion if isinstance(message, dict))
    return ""


def accuracy(completions: Sequence[Any], answer: Sequence[str], **columns: Any) -> list[float | None]:
    """1 where the boxed answer equals the gold in column ``answer``, else 0."""
    return [float(verdict.correct) for verdict in verify_batch(answer, [text_of(c) for c in completions])]


_NAMED: dict[str, RewardFunction] = {"accuracy": accuracy}


def get(name: str) -> RewardFunction:
    """The reward function registered under ``name``."""
    if name not in _NAMED:
        raise unknown_name("reward", name, _NAMED)
    return _NAMED[name]

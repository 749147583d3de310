"""What the verifier says about one completion."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one completion.

    Args:
        correct: whether the answer equals the gold.
        extracted: the text found in the last box; ``None`` if there is no answer.
        how: the stage that decided.
        seconds: the time spent on this item.
        reason: one line that a person can read.
    """

    correct: bool
    extracted: str | None
    how: str
    seconds: float
    reason: str

"""What the verifier says about one completion."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one completion.

    Attributes:
        correct: whether the answer equals the gold; ``None`` if that could not be judged: the gold cannot be read, or the
            comparison was cut short. Such a verdict says nothing about the answer: leave it out, do not count it as wrong.
        extracted: the text in the last box, at most :data:`~rlvr_lite.rewards.math._extract.ANSWER` characters; ``None`` if
            there is no answer.
        how: the stage that decided: "extract" (there is no answer), "string", "number", "text", "structure",
            "algebra", "numeric", "math-verify".
        seconds: time spent on this item, without waiting for others.
        reason: why, in a few words.
    """

    correct: bool | None
    extracted: str | None
    how: str
    seconds: float
    reason: str

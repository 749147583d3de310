"""The gold of an answer cell: one function, so that one file has one gold wherever it is read."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

__all__ = ["gold_of"]


def gold_of(value: Any) -> tuple[str | None, str]:
    r"""The final answer of a cell, or why there is none.

    A text is its answer; of a worked solution the part after the last ``####`` (GSM8K) or in the last ``\boxed{}``.
    ``27.0`` is 27, a list of one its entry, dollar signs around all of it are left out.

    Returns:
        The gold and "", or ``None`` and the reason in words.

    >>> gold_of("48/2 = 24\n#### 24"), gold_of([27.0]), gold_of(r"so $\boxed{\frac{1}{2}}$")
    (('24', ''), ('27', ''), ('\\frac{1}{2}', ''))
    >>> gold_of(float("nan"))
    (None, 'is nan, which is no answer')
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == 1:
        value = value[0]
    if value is None:
        return None, "is empty"
    if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
        return None, f"is a {type(value).__name__}, not text or a number"
    if isinstance(value, numbers.Integral):
        whole = int(value)  # of any size; beyond 4,300 digits Python writes none
        return (str(whole), "") if whole.bit_length() < 14_000 else (None, "is a number of thousands of digits")
    if not isinstance(value, str):
        if not math.isfinite(value):
            return None, f"is {value}, which is no answer"
        number = float(value)
        return str(int(number)) if number.is_integer() else str(value), ""
    text = value
    if "####" in text:
        text = text.rpartition("####")[2]
    elif "\\boxed{" in text:
        inner = _boxed(text)
        if inner is None:
            return None, "has a \\boxed{} that is never closed"
        text = inner
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "$" and text[-2] != "\\" and "$" not in text[1:-1]:
        text = text[1:-1].strip()
    return (text, "") if text else (None, "is empty")


def _boxed(text: str) -> str | None:
    """What the last ``\\boxed{}`` holds; ``None`` if its braces do not close."""
    start = text.rfind("\\boxed{") + len("\\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None

"""The verdict on a completion."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rlvr_lite.rewards.extract import extract
from rlvr_lite.rewards.verdict import Verdict

__all__ = ["verify", "verify_batch"]


def _equal(gold: str, answer: str) -> tuple[bool, str, str]:
    if gold.strip() == answer.strip():
        return True, "string", "identical"
    try:
        left, right = int(gold.replace(",", "")), int(answer.replace(",", ""))
    except ValueError:
        pass
    else:
        return left == right, "number", f"{left} and {right}"
    try:
        from math_verify import parse, verify

        same = verify(parse(f"\\boxed{{{gold}}}"), parse(f"\\boxed{{{answer}}}"))
    except Exception as error:
        return False, "math-verify", f"could not be compared ({type(error).__name__})"
    return bool(same), "math-verify", "equal" if same else "different"


def verify(gold: str, completion: str) -> Verdict:
    """The verdict on one completion."""
    start = time.perf_counter()
    answer, reason = extract(completion)
    if answer is None:
        return Verdict(False, None, "extract", time.perf_counter() - start, reason)
    correct, how, reason = _equal(gold, answer)
    return Verdict(correct, answer, how, time.perf_counter() - start, reason)


def verify_batch(golds: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
    """The verdicts on many completions, in their order."""
    return [verify(gold, completion) for gold, completion in zip(golds, completions, strict=True)]

"""Scores of one benchmark as pure functions of which samples were right: avg@k, pass@k, maj@k, lengths.

``correct`` is always ``[n, k]``: n problems, k samples each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlvr_lite.errors import UserError

__all__ = ["avg_at_k", "length_quantiles", "maj_at_k", "pass_at_k", "pass_curve"]


def _outcomes(correct: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(correct, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise UserError(f"correct must be a table of problems by samples, [n, k] with n, k >= 1; got {array.shape}")
    return array


def avg_at_k(correct: ArrayLike) -> NDArray[np.float64]:
    """avg@k of each problem: the share of its k samples that are right, ``[n]``.

    The benchmark's avg@k is the mean of these; it estimates accuracy without the noise of a single sample.

    >>> avg_at_k([[1, 0, 0, 1], [0, 0, 0, 0]]).tolist()
    [0.5, 0.0]
    """
    return _outcomes(correct).mean(axis=1)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k samples is right, from c right ones among n.

    pass@k = 1 - C(n - c, k) / C(n, k), Chen et al. 2021 (arXiv 2107.03374), eq. 1. At k = n it is "any of the n",
    which is what the paper (arXiv 2512.23165) reports.

    Raises:
        UserError: not 0 <= c <= n or not 1 <= k <= n.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 0 <= c <= n:
        raise UserError(f"cannot have {c} right answers among {n} samples")
    if not 1 <= k <= n:
        raise UserError(f"pass@{k} needs between 1 and {n} (the samples drawn) as k")
    total = math.comb(n, k)
    return (total - math.comb(n - c, k)) / total  # integers until the last: correctly rounded


def pass_curve(correct: ArrayLike) -> NDArray[np.float64]:
    """pass@k' of each problem for every k' from 1 to k, ``[n, k]``; column 0 is avg@k.

    >>> pass_curve([[1, 0]]).tolist()
    [[0.5, 1.0]]
    """
    table = _outcomes(correct)
    k = table.shape[1]
    counts = table.sum(axis=1).astype(int)
    by_count = {c: [pass_at_k(k, c, size) for size in range(1, k + 1)] for c in sorted(set(counts.tolist()))}
    return np.array([by_count[c] for c in counts.tolist()])


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Chance that the most frequent answer among k samples is right, ties broken at random (Wang et al. 2022).

    All right answers are one candidate, however they are written; wrong ones are told apart by their text. A sample
    without an answer does not vote.

    Args:
        answers: the extracted answer of each sample, ``None`` where there is none.
        correct: the verdict on each.

    >>> maj_at_k(["7", "7.0", "8", None], [True, True, False, False])
    1.0
    >>> maj_at_k(["7", "8"], [True, False])
    0.5
    """
    votes: dict[str | None, int] = {}
    for answer, right in zip(answers, correct, strict=True):
        if right:
            votes[None] = votes.get(None, 0) + 1
        elif answer is not None:
            key = " ".join(answer.split())
            votes[key] = votes.get(key, 0) + 1
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [key for key, count in votes.items() if count == most]
    return (None in winners) / len(winners)


def length_quantiles(tokens: ArrayLike) -> dict[str, float]:
    """Quantiles of completion lengths in tokens.

    >>> length_quantiles([10, 20, 30])["median"]
    20.0
    """
    names = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    values = np.asarray(tokens, dtype=np.float64).ravel()
    return {name: float(np.quantile(values, q)) for name, q in names.items()}

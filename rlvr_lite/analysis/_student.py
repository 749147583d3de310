"""Quantiles of the normal distribution and of Student's t, so that statistics need no SciPy."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

import numpy as np

__all__ = ["normal_cdf", "normal_quantile", "student_quantile"]

_NORMAL = NormalDist()
_LEGENDRE = np.polynomial.legendre.leggauss(100)
_AS_GOOD_AS_NORMAL = 1e7


def normal_cdf(x: float) -> float:
    """The standard normal's distribution function."""
    return _NORMAL.cdf(x)


def normal_quantile(q: float) -> float:
    """The standard normal's quantile.

    >>> round(normal_quantile(0.975), 4)
    1.96
    """
    return _NORMAL.inv_cdf(q)


def _log_upper_tail(t: float, df: float) -> float:
    """log P(T > t) for t >= 0: with t = sqrt(df) tan(x), the density in x is proportional to cos(x)^(df - 1)."""
    nodes, weights = _LEGENDRE
    start = math.atan(t / math.sqrt(df))
    # The mass sits within a few 1/sqrt(df) of the lower end: integrate that stretch alone when it is short.
    half = min(math.pi / 2 - start, 40 / math.sqrt(max(df - 1, 1e-9))) / 2
    logs = (df - 1) * np.log(np.cos(start + half * (nodes + 1)))
    top = float(logs.max())
    area = top + math.log(half * float(np.sum(weights * np.exp(logs - top))))
    return area - _log_beta(df)


def _log_beta(df: float) -> float:
    """log of the area under cos(x)^(df - 1) from -pi/2 to pi/2."""
    return math.log(math.pi) / 2 + math.lgamma(df / 2) - math.lgamma((df + 1) / 2)


@functools.lru_cache(maxsize=4096)
def student_quantile(q: float, df: float) -> float:
    """Quantile of Student's t, by Newton's method on the logarithm of its tail.

    >>> round(student_quantile(0.975, 2), 3), round(student_quantile(0.975, 29), 3)
    (4.303, 2.045)
    """
    if not 0 < q < 1 or df < 1:
        raise ValueError(f"need 0 < q < 1 and df >= 1, got q = {q}, df = {df}")
    if q < 0.5:
        return -student_quantile(1 - q, df)
    if q == 0.5 or df > _AS_GOOD_AS_NORMAL:
        return normal_quantile(q)
    wanted, t = math.log(1 - q), normal_quantile(q)  # t's quantile lies further out: Newton comes from the left
    for _ in range(200):
        tail = _log_upper_tail(t, df)
        density = -_log_beta(df) - math.log(df) / 2 - (df + 1) / 2 * math.log1p(t * t / df)
        step = (tail - wanted) * math.exp(tail - density)
        t += step
        if abs(step) < 1e-12 * (1 + t):
            break
    return t

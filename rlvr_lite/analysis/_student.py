"""Quantiles and tails of the normal distribution and of Student's t, so that statistics need no SciPy."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

import numpy as np

__all__ = ["normal_cdf", "normal_quantile", "student_p_value", "student_quantile"]

_NORMAL = NormalDist()
_LEGENDRE = np.polynomial.legendre.leggauss(200)


def normal_cdf(x: float) -> float:
    """The standard normal's distribution function."""
    return _NORMAL.cdf(x)


def normal_quantile(q: float) -> float:
    """The standard normal's quantile.

    >>> round(normal_quantile(0.975), 4)
    1.96
    """
    return _NORMAL.inv_cdf(q)


def _student_upper_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0: with t = sqrt(df) tan(x), the density in x is proportional to cos(x)^(df - 1)."""
    if df > 1e6:
        return math.erfc(t / math.sqrt(2)) / 2
    nodes, weights = _LEGENDRE
    # In log space from the tail's edge, so that far tails keep their relative accuracy.
    start = math.atan(t / math.sqrt(df))

    def log_area(low: float, high: float) -> float:
        half = (high - low) / 2
        logs = (df - 1) * np.log(np.cos(low + half * (nodes + 1)))
        top = float(logs.max())
        return top + math.log(half * float(np.sum(weights * np.exp(logs - top))))

    edge = math.pi / 2
    # Mass sits within a few 1/sqrt(df) of its lower end: integrate that stretch alone when it is short.
    reach = 40 / math.sqrt(max(df - 1, 1e-9))
    tail = log_area(start, min(edge, start + reach))
    whole = log_area(0.0, min(edge, reach))
    return 0.5 * math.exp(tail - whole)


def student_p_value(t: float, df: float) -> float:
    """Two-sided p-value of Student's t with ``df`` degrees of freedom.

    >>> round(student_p_value(2.045, 29), 3)
    0.05
    """
    if df <= 0:
        raise ValueError(f"degrees of freedom must be positive, got {df}")
    return min(1.0, 2 * _student_upper_tail(abs(t), df)) if math.isfinite(t) else 0.0


@functools.lru_cache(maxsize=1024)
def student_quantile(q: float, df: float) -> float:
    """Quantile of Student's t, by bisection on its tail.

    >>> round(student_quantile(0.975, 2), 3), round(student_quantile(0.975, 29), 3)
    (4.303, 2.045)
    """
    if not 0 < q < 1 or df <= 0:
        raise ValueError(f"need 0 < q < 1 and df > 0, got q = {q}, df = {df}")
    if q < 0.5:
        return -student_quantile(1 - q, df)
    low, high = 0.0, 1.0
    while _student_upper_tail(high, df) > 1 - q:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_upper_tail(middle, df) > 1 - q else (low, middle)
    return (low + high) / 2

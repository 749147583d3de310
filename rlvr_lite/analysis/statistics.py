"""How sure is a score, and how sure a difference: intervals, paired tests, correction for many, and power.

A problem is the unit of sampling: the k answers to one problem are not independent, so every standard error here is
clustered by problem (Miller, "Adding Error Bars to Evals", arXiv 2411.00640, section 2.2). Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlvr_lite.analysis._student import normal_cdf, normal_quantile, student_quantile
from rlvr_lite.errors import UserError

__all__ = [
    "Difference",
    "Interval",
    "accuracy_interval",
    "bootstrap_interval",
    "clustered_standard_error",
    "detectable_difference",
    "holm",
    "mean_interval",
    "normal_quantile",
    "paired_difference",
    "permutation_p_value",
    "sampling_variance",
    "student_quantile",
]

_EXACT_SIGNS = 14  # sign patterns of differences off any grid are enumerated up to this many, sampled beyond
_FINEST_GRID = 256


@dataclass(frozen=True)
class Interval:
    """An estimate with the two ends of its confidence interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """The three numbers by name."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference:
    """A paired difference: estimate, interval, two-sided p-value and standard error."""

    value: float
    low: float
    high: float
    p_value: float
    standard_error: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, float]:
        """The five numbers by name."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "p_value": self.p_value,
            "standard_error": self.standard_error,
        }

    @property
    def signed(self) -> str:
        """Estimate and interval with their signs."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def __str__(self) -> str:
        return f"{self.signed}, p = {self.p_value:.3g}"


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise UserError(f"{name} must be a non-empty list of numbers, one a problem; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds a value that is not a finite number")
    return array


def clustered_standard_error(values: ArrayLike, clusters: Sequence[object]) -> float:
    """Standard error of a mean over values that come in clusters, such as samples by problem.

    SE = sqrt(C / (C - 1) * sum_c (sum_{i in c} (x_i - mean))^2) / n, with C clusters and n values (arXiv 2411.00640,
    section 2.2, with the small-sample factor). With clusters of one size it equals the standard error of the cluster
    means.

    Raises:
        UserError: fewer than two clusters, or another number of labels than of values.
    """
    x = _vector(values, "values")
    if len(clusters) != x.size:
        raise UserError(f"{x.size} values but {len(clusters)} cluster labels: give one each")
    labels: dict[object, int] = {}
    index = np.array([labels.setdefault(label, len(labels)) for label in clusters])
    count = len(labels)
    if count < 2:
        raise UserError("a standard error needs at least two problems")
    sums = np.bincount(index, weights=x - x.mean(), minlength=count)
    return math.sqrt(count / (count - 1) * float(np.sum(sums**2))) / x.size


def accuracy_interval(scores: ArrayLike, level: float = 0.95) -> Interval:
    """Confidence interval of a mean of scores in [0, 1], one a problem.

    Wilson's interval at the effective number of problems n* = m (1 - m) / (s^2 / n), where m is the mean and s^2 the
    variance of the scores: for scores of 0 and 1 that is Wilson's own (1927, n* = n, normal quantile), for averages
    over k samples n* exceeds n by what averaging gains, and Student's quantile with n - 1 degrees of freedom pays for
    the estimated variance (Korn and Graubard 1998 use the same device for surveys). Unlike mean +- 2 standard errors
    it stays inside [0, 1] and does not shrink to a point when all problems are failed or solved.

    Raises:
        UserError: a score outside [0, 1], or none.

    >>> print(accuracy_interval([0.0] * 10))
    0.000 [0.000, 0.278]
    >>> print(accuracy_interval([1.0, 0.5, 0.0, 0.5]))
    0.500 [0.126, 0.874]
    """
    x = _vector(scores, "scores")
    if x.min() < 0 or x.max() > 1:
        raise UserError("scores must lie in [0, 1]: give accuracies, not percentages")
    n, mean = x.size, float(x.mean())
    variance = float(x.var())
    binary = bool(np.isin(x, (0.0, 1.0)).all())
    q = normal_quantile(0.5 + level / 2) if binary or n < 2 else student_quantile(0.5 + level / 2, n - 1)
    size = float(n) if variance == 0 or n < 2 else mean * (1 - mean) / (variance / n)
    ratio = q * q / size
    centre = (mean + ratio / 2) / (1 + ratio)
    half = math.sqrt(mean * (1 - mean) * ratio + ratio * ratio / 4) / (1 + ratio)
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(scores: ArrayLike, level: float = 0.95) -> Interval:
    """Confidence interval of a mean of rewards, one a problem: Student's, and of accuracies :func:`accuracy_interval`.

    >>> print(mean_interval([1.0, 3.0, 5.0]))
    3.000 [-1.968, 7.968]
    """
    x = _vector(scores, "scores")
    if x.min() >= 0 and x.max() <= 1:
        return accuracy_interval(x, level)
    mean, n = float(x.mean()), x.size
    half = student_quantile(0.5 + level / 2, n - 1) * float(x.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval (BCa; Efron 1987) over problems.

    Args:
        values: one number a problem, ``[n]``.
        statistic: maps resampled values ``[draws, n]`` to ``[draws]``; the mean if not given.
        level: coverage asked for.
        draws: resamples.
        seed: decides the resamples.

    >>> interval = bootstrap_interval([0.0, 0.25, 0.5, 1.0, 0.75, 0.5])
    >>> interval.low < interval.value == 0.5 < interval.high
    True
    """
    x = _vector(values, "values")
    n = x.size
    measure = statistic or (lambda sample: sample.mean(axis=-1))
    value = float(measure(x[None])[0])
    if n < 2 or np.all(x == x[0]):
        return Interval(value, value, value)
    rng = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // n)  # at most 16 MB of resamples at once
    parts = [measure(x[rng.integers(0, n, (min(rows, draws - at), n))]) for at in range(0, draws, rows)]
    replicates = np.sort(np.concatenate(parts))
    below = np.mean(replicates < value) + np.mean(replicates == value) / 2
    if not 0 < below < 1:
        return Interval(value, float(replicates[0]), float(replicates[-1]))
    bias = normal_quantile(float(below))
    leave_one_out = np.concatenate([measure(np.delete(x, i)[None]) for i in range(n)])
    deviation = leave_one_out.mean() - leave_one_out
    spread = float(np.sum(deviation**2))
    acceleration = float(np.sum(deviation**3)) / (6 * spread**1.5) if spread > 0 else 0.0

    def end(q: float) -> float:
        z = bias + normal_quantile(q)
        return float(np.quantile(replicates, normal_cdf(bias + z / (1 - acceleration * z))))

    return Interval(value, end(0.5 - level / 2), end(0.5 + level / 2))


def permutation_p_value(differences: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided sign-flip test of "both are the same": each problem's difference may as well have the other sign.

    Exact where the differences are multiples of 1/m, m <= 256, as those of averages over k answers are, and where at
    most 14 of them are not zero; otherwise (1 + hits) / (1 + draws) over random signs, which does not fall below its
    nominal level (Phipson and Smyth 2010). On greedy answers it is McNemar's exact test.

    >>> permutation_p_value([1, 1, 1, 1, 0, 0])
    0.125
    """
    d = _vector(differences, "differences")
    d = d[d != 0]
    if d.size == 0:
        return 1.0
    steps = _grid_steps(d)
    if steps is not None:
        return _exact_sign_flips(steps)
    observed = abs(float(d.sum())) * (1 - 1e-12)  # ties count as hits whatever the rounding
    if d.size <= _EXACT_SIGNS:
        patterns = (np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ d) >= observed))
    rng = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // d.size)
    hits = 0
    for at in range(0, draws, rows):
        signs = 1 - 2 * rng.integers(0, 2, (min(rows, draws - at), d.size), dtype=np.int8)
        hits += int(np.sum(np.abs(signs @ d) >= observed))
    return (1 + hits) / (1 + draws)


def _grid_steps(d: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The differences as whole numbers of the coarsest grid 1/m that they lie on; ``None`` if there is none."""
    for m in range(1, _FINEST_GRID + 1):
        steps = np.rint(d * m)
        if np.abs(d * m - steps).max() < 1e-9 * m:
            return steps.astype(np.int64)
    return None


def _exact_sign_flips(steps: NDArray[np.int64]) -> float:
    """P(|sum of randomly signed steps| >= |their sum|), by adding one step after the other to the distribution."""
    reach = int(np.abs(steps).sum())
    chance = np.zeros(2 * reach + 1)  # of each sum from -reach to reach
    chance[reach] = 1.0
    for step in np.abs(steps).tolist():
        moved = np.zeros_like(chance)
        moved[step:] += chance[: chance.size - step]
        moved[: chance.size - step] += chance[step:]
        chance = moved / 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chance[sums >= abs(int(steps.sum()))].sum()))


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Difference:
    """How much better ``b`` does than ``a`` on the same problems: mean of b - a, interval and sign-flip p-value.

    Pairing removes the difficulty of the problems from the noise (arXiv 2411.00640, section 4.2). The interval is
    Student's on the differences; where both sides hold only 0 and 1 (one greedy answer each) it is Bonett and Price's
    (2012), which adds one problem won and one lost, because few problems differ then and t would be too narrow.

    Args:
        a: scores of the reference, one a problem, ``[n]``.
        b: scores of the other on the same problems in the same order, ``[n]``.
        level: coverage of the interval.
        seed: of the sign flips.

    Raises:
        UserError: different lengths, or fewer than two problems.

    >>> d = paired_difference([0, 0, 1, 1], [0.5, 0.25, 1, 1])
    >>> round(d.value, 4), d.p_value
    (0.1875, 0.5)
    """
    x, y = _vector(a, "a"), _vector(b, "b")
    if x.size != y.size:
        raise UserError(f"{x.size} scores against {y.size}: a paired difference needs the same problems on both sides")
    if x.size < 2:
        raise UserError("a paired difference needs at least two problems")
    d = y - x
    value = float(d.mean())
    p_value = permutation_p_value(d, seed=seed)
    if np.isin(np.concatenate([x, y]), (0.0, 1.0)).all():
        padded = np.concatenate([d, [1.0, -1.0]])
        error = float(padded.std()) / math.sqrt(padded.size)
        centre, half = float(padded.mean()), normal_quantile(0.5 + level / 2) * error
    else:
        error = float(d.std(ddof=1)) / math.sqrt(d.size)
        centre, half = value, student_quantile(0.5 + level / 2, d.size - 1) * error
    most = 1.0 if min(x.min(), y.min()) >= 0 and max(x.max(), y.max()) <= 1 else math.inf  # rewards know no bound
    return Difference(value, max(-most, centre - half), min(most, centre + half), p_value, error)


def holm(p_values: ArrayLike) -> list[float]:
    """p-values corrected for being many (Holm 1979): reject where the result is below the level.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (p.size - np.arange(p.size))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


def sampling_variance(correct: ArrayLike) -> float:
    """Mean over problems of p (1 - p), the variance of one sampled answer, unbiased from k >= 2 samples ``[n, k]``.

    Raises:
        UserError: a single sample a problem says nothing of it.

    >>> sampling_variance([[1, 0], [1, 1]])
    0.25
    """
    x = np.asarray(correct, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] < 2:
        raise UserError("the sampling variance needs at least two samples a problem: raise k")
    return float(np.mean(x.var(axis=1, ddof=1)))


def detectable_difference(
    problems: int,
    k: int,
    *,
    seeds: int = 1,
    comparisons: int = 1,
    within: float = 0.12,
    between: float = 0.1,
    seed_sd: float = 0.0,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """Smallest true difference in avg@k that a paired comparison will show with probability ``power``.

    delta = sqrt(t_{S-1}^2 V_s + t_{n-1}^2 V_p) + z_power sqrt(V_s + V_p), with V_s = 2 sd^2 / S + 2 w / (S n k) the
    noise of training and sampling and V_p = omega^2 / n that of the choice of problems (arXiv 2411.00640, section 5,
    with a term for training seeds and the interval of ``replication.seed_problem_difference``). With one seed the noise
    of training cannot be seen: delta then holds between two runs, not between two methods. Many comparisons are counted
    at Bonferroni's level, Holm's worst case.

    Args:
        problems: n, at least 2.
        k: samples a problem.
        seeds: S, training runs a method.
        comparisons: how many differences are tested together.
        within: w, mean over problems of p (1 - p); see :func:`sampling_variance`. The default is that of a 1.5B model
            on AIME-like problems.
        between: omega, standard deviation over problems of the true difference.
        seed_sd: sd, standard deviation of a method's accuracy over training seeds.
        power: wanted probability of showing the difference.
        level: confidence of the interval that must exclude zero.

    Raises:
        UserError: a number outside its range.

    >>> round(detectable_difference(30, 32, between=0.0), 3)
    0.046
    """
    for name, count, least in (
        ("problems", problems, 2),
        ("k", k, 1),
        ("seeds", seeds, 1),
        ("comparisons", comparisons, 1),
    ):
        if count < least:
            raise UserError(f"{name} must be at least {least}, got {count}")
    if not 0 < power < 1 or not 0 < level < 1:
        raise UserError(f"power and level must lie between 0 and 1, got {power} and {level}")
    if not 0 <= within <= 0.25 or between < 0 or seed_sd < 0:
        raise UserError("within must lie in [0, 0.25], between and seed_sd must not be negative")
    q = 1 - (1 - level) / 2 / comparisons
    of_problems, of_sampling = between**2 / problems, 2 * within / (seeds * problems * k)
    q_problem = student_quantile(q, problems - 1)
    if seeds == 1:
        return (q_problem + normal_quantile(power)) * math.sqrt(of_problems + of_sampling)
    of_seeds = 2 * seed_sd**2 / seeds + of_sampling
    half = math.sqrt(student_quantile(q, seeds - 1) ** 2 * of_seeds + q_problem**2 * of_problems)
    return half + normal_quantile(power) * math.sqrt(of_seeds + of_problems)

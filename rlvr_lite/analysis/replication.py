"""Methods compared over training seeds and problems: paired differences, joint draws, probability of being best.

Every method is trained with the same seeds and scored on the same problems, so scores are ``[M, S, P]``: methods, seeds,
problems. A seed moves all problems of a run together (training noise), a problem all seeds of a method (its difficulty
for that method); leaving the first out calls noise a difference in half of all studies. Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlvr_lite.analysis._student import student_quantile
from rlvr_lite.analysis.statistics import Difference, Interval, holm, mean_interval, paired_difference
from rlvr_lite.errors import UserError, unknown_name

__all__ = [
    "Comparison",
    "Verdict",
    "compare_to_reference",
    "joint_draws",
    "probability_of_best",
    "seed_problem_difference",
    "seed_problem_interval",
    "verdict",
]

Verdict = Literal["better", "worse", "equivalent", "no difference shown"]


@dataclass(frozen=True)
class Comparison:
    """A method against the reference of a study.

    Attributes:
        method: its name.
        difference: method minus reference.
        adjusted_p: p-value after Holm's correction over all methods compared.
        verdict: what may be said.
    """

    method: str
    difference: Difference
    adjusted_p: float
    verdict: Verdict


def _grid(scores: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    array = np.asarray(scores, dtype=np.float64)
    shape = {2: "[seeds, problems]", 3: "[methods, seeds, problems]"}[dimensions]
    if array.ndim != dimensions or array.size == 0:
        raise UserError(f"scores must be {shape}; got shape {array.shape}")
    if array.shape[-1] < 2:
        raise UserError("a comparison needs at least two problems")
    if not np.isfinite(array).all():
        raise UserError("scores hold a value that is not a finite number: leave out the runs that failed")
    return array


@dataclass(frozen=True)
class _Effects:
    """Two-way layout y[.., s, p] = mean + seed[.., s] + problem[.., p] + rest, with its mean squares (last two axes)."""

    mean: NDArray[np.float64]
    seed: NDArray[np.float64]
    problem: NDArray[np.float64]
    square_seed: NDArray[np.float64]
    square_problem: NDArray[np.float64]
    square_rest: NDArray[np.float64]

    @classmethod
    def of(cls, y: NDArray[np.float64]) -> _Effects:
        seeds, problems = y.shape[-2:]
        mean = y.mean(axis=(-2, -1), keepdims=True)
        seed = y.mean(axis=-1, keepdims=True) - mean
        problem = y.mean(axis=-2, keepdims=True) - mean
        rest = y - mean - seed - problem
        free = max(1, seeds - 1)
        return cls(
            mean[..., 0, 0],
            seed[..., 0],
            problem[..., 0, :],
            problems * np.sum(seed**2, axis=(-2, -1)) / free,
            seeds * np.sum(problem**2, axis=(-2, -1)) / (problems - 1),
            np.sum(rest**2, axis=(-2, -1)) / (free * (problems - 1)),
        )


@dataclass(frozen=True)
class _Error:
    """Mean of scores ``[S, P]``, S >= 2, and the two parts of its variance.

    Var = V_s + V_p with V_s = MS_seed / (S P) and V_p = max(0, MS_problem - MS_rest) / (S P), from the two-way random
    effects analysis of variance. The interval's half width is sqrt(t_{S-1}^2 V_s + t_{P-1}^2 V_p): each part pays for
    what it was estimated from, exact where one part is all there is (the modified large sample principle of Graybill
    and Wang 1980). Satterthwaite's single number of degrees of freedom rejects a true null 6 to 7 times in 100 here.
    """

    value: float
    of_seeds: float
    of_problems: float
    seeds: int
    problems: int

    @classmethod
    def of(cls, y: NDArray[np.float64]) -> _Error:
        e, size = _Effects.of(y), y.size
        of_problems = max(0.0, float(e.square_problem - e.square_rest)) / size
        return cls(float(e.mean), float(e.square_seed) / size, of_problems, *y.shape)

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.of_seeds + self.of_problems)

    def half_width(self, level: float) -> float:
        """Half of the confidence interval."""
        q = 0.5 + level / 2
        of_seeds = student_quantile(q, self.seeds - 1) ** 2 * self.of_seeds
        return math.sqrt(of_seeds + student_quantile(q, self.problems - 1) ** 2 * self.of_problems)

    def p_value(self) -> float:
        """One minus the level at which the interval just reaches zero."""
        if self.value == 0 or self.error == 0:
            return float(self.value == 0)
        low, high = math.log(1e-12), 0.0
        for _ in range(26):  # to one part in a million
            middle = (low + high) / 2
            low, high = (middle, high) if self.half_width(1 - math.exp(middle)) > abs(self.value) else (low, middle)
        return math.exp(high)


def seed_problem_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Difference:
    """How much better method ``b`` is than ``a``, paired by training seed and problem: mean of b - a.

    Seeds and problems are both samples: Var = (MS_seed + max(0, MS_problem - MS_rest)) / (S P), the two-way random
    effects analysis of variance, with t quantiles for the number of seeds and of problems. With three seeds that is a
    wide interval, and it has to be: the spread of training is known from three numbers. With one seed only problems
    vary, and the result speaks of that one pair of runs (:func:`paired_difference`).

    Args:
        a: scores of the reference, ``[S, P]``.
        b: scores of the method, ``[S, P]``, same seeds and problems in the same order.
        level: coverage of the interval.

    Raises:
        UserError: the two have other shapes.

    >>> a = [[0.2, 0.4, 0.6], [0.4, 0.4, 0.6]]
    >>> d = seed_problem_difference(a, [[0.6, 0.6, 0.8], [0.6, 0.8, 0.8]])
    >>> round(d.value, 3), d.excludes_zero
    (0.267, True)
    """
    x, y = _grid(a, 2), _grid(b, 2)
    if x.shape != y.shape:
        raise UserError(f"scores of {x.shape} against {y.shape}: both methods need the same seeds and problems")
    if len(x) == 1:
        return paired_difference(x[0], y[0], level=level)
    e = _Error.of(y - x)
    half, most = e.half_width(level), _span(x, y)
    return Difference(e.value, max(-most, e.value - half), min(most, e.value + half), e.p_value(), e.error)


def seed_problem_interval(scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """A method's accuracy over training seeds and problems ``[S, P]``, with both kinds of noise in the interval."""
    x = _grid(scores, 2)
    if len(x) == 1:
        return mean_interval(x[0], level)
    e = _Error.of(x)
    half, most = e.half_width(level), _span(x)
    return Interval(e.value, max(0.0 if most == 1 else -most, e.value - half), min(most, e.value + half))


def _span(*scores: NDArray[np.float64]) -> float:
    """The largest that a score may be: 1 of accuracies; rewards know no bound."""
    return 1.0 if all(x.min() >= 0 and x.max() <= 1 for x in scores) else math.inf


def joint_draws(scores: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """Where the true mean scores of all methods may lie together, given seeds and problems that are both samples.

    Problems are resampled with replacement, the same ones for every method, their effects scaled to the unbiased variance
    by sqrt(P / (P - 1) (1 - MS_rest / MS_problem)), or the rest term would count twice. Two or three seeds have too few
    resamples and tell too little of their own spread, so their effects get Gaussian multipliers over the root of a
    chi-squared number of S - 1 degrees of freedom: what the methods' means owe to their seeds is then jointly t
    distributed, and the draws are as wide as the intervals of :func:`seed_problem_difference`. What all methods share and
    what sets them apart is scaled apart.

    Args:
        scores: ``[M, S, P]``.
        draws: how many.
        seed: decides them.

    Returns:
        ``[draws, M]``.
    """
    y = _grid(scores, 3)
    _, seeds, problems = y.shape
    shared = y.mean(axis=0, keepdims=True)
    rng = np.random.default_rng(seed)
    of_problem = rng.multinomial(problems, np.full(problems, 1 / problems), draws) / problems
    of_seed = np.zeros((draws, seeds))
    if seeds > 1:
        of_seed = rng.standard_normal((draws, seeds)) / np.sqrt(seeds * rng.chisquare(seeds - 1, (draws, 1)))
    total = np.zeros((draws, len(y)))
    for part in (shared, y - shared):
        e = _Effects.of(part)
        rest, whole = float(e.square_rest.sum()), float(e.square_problem.sum())
        share = max(0.0, 1 - rest / whole) if seeds > 1 and whole > 0 else 1.0
        total = total + e.mean + of_problem @ e.problem.T * math.sqrt(problems / (problems - 1) * share)
        total = total + of_seed @ e.seed.T
    return total


def probability_of_best(scores: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> list[float]:
    """Share of the joint draws in which each method has the highest score; ties are shared.

    Args:
        scores: ``[M, S, P]``.
        draws: see :func:`joint_draws`.
        seed: see :func:`joint_draws`.

    >>> probability_of_best([[[0.2, 0.2]], [[0.4, 0.4]], [[0.4, 0.4]]])
    [0.0, 0.5, 0.5]
    """
    table = joint_draws(scores, draws=draws, seed=seed)
    top = table >= table.max(axis=1, keepdims=True) - 1e-12
    return [float(share) for share in (top / top.sum(axis=1, keepdims=True)).mean(axis=0)]


def verdict(difference: Difference, adjusted_p: float, *, zone: float = 0.0, alpha: float = 0.05) -> Verdict:
    """What may be said of a difference: never more than the data show.

    "better" and "worse" need the interval to exclude zero and the corrected p-value to be below ``alpha``;
    "equivalent" needs the whole interval inside the zone of practical equivalence, [-zone, zone] (Schuirmann 1987).

    >>> verdict(Difference(0.10, 0.02, 0.18, 0.01, 0.04), 0.03)
    'better'
    >>> verdict(Difference(0.00, -0.01, 0.01, 0.9, 0.005), 0.9, zone=0.02)
    'equivalent'
    """
    if -zone <= difference.low and difference.high <= zone and zone > 0:
        return "equivalent"
    if difference.excludes_zero and adjusted_p < alpha:
        return "better" if difference.value > 0 else "worse"
    return "no difference shown"


def compare_to_reference(scores: Mapping[str, ArrayLike], reference: str, *, zone: float = 0.0) -> list[Comparison]:
    """Every other method of a study against one, corrected for their number by Holm's method.

    Args:
        scores: of each method ``[S, P]``, same seeds and problems.
        reference: the method that the others are compared with.
        zone: half width of the zone of practical equivalence, in accuracy.

    Raises:
        UserError: the reference is not among the methods, or shapes differ.
    """
    if reference not in scores:
        raise unknown_name("reference", reference, scores)
    tables = {name: _grid(table, 2) for name, table in scores.items()}
    shapes = {table.shape for table in tables.values()}
    if len(shapes) > 1:
        raise UserError(
            f"the methods have scores of different shapes {sorted(shapes)}: give all the same seeds and problems"
        )
    others = [name for name in tables if name != reference]
    differences = [seed_problem_difference(tables[reference], tables[name]) for name in others]
    adjusted = holm([difference.p_value for difference in differences])
    return [
        Comparison(name, difference, p, verdict(difference, p, zone=zone))
        for name, difference, p in zip(others, differences, adjusted, strict=True)
    ]

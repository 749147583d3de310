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

from rlvr_lite.analysis._student import normal_quantile, student_quantile
from rlvr_lite.analysis.statistics import Difference, Interval, holm, mean_interval, paired_difference
from rlvr_lite.errors import UserError, unknown_name

__all__ = [
    "Comparison",
    "Verdict",
    "compare_to_reference",
    "equivalent",
    "in_words",
    "joint_draws",
    "probability_of_best",
    "seed_problem_difference",
    "seed_problem_interval",
    "selection_variance",
    "verdict",
]

#: Of the direction of a difference; whether it lies within an equivalence margin is said besides. The last one is a study's,
#: of a row whose learning-rate search leaves open what its best score is.
Verdict = Literal["better", "worse", "no significant difference", "search inconclusive"]


@dataclass(frozen=True)
class Comparison:
    """A method against the reference of a study.

    Attributes:
        method: its name.
        difference: method minus reference.
        adjusted_p: p-value after Holm's correction over all methods compared.
        verdict: what may be said of its direction.
        equivalent: whether the whole interval lies within the equivalence margin, whatever its direction.
    """

    method: str
    difference: Difference
    adjusted_p: float
    verdict: Verdict
    equivalent: bool = False

    @property
    def words(self) -> str:
        """Direction and equivalence together."""
        return in_words(self.verdict, self.equivalent)


def in_words(verdict: Verdict, equivalent: bool) -> str:
    """A verdict on the direction and one on equivalence, together.

    >>> in_words("better", True), in_words("better", False), in_words("no significant difference", True)
    ('better, within the equivalence margin', 'better', 'equivalent')
    """
    if equivalent and verdict == "no significant difference":
        return "equivalent"
    return f"{verdict}, within the equivalence margin" if equivalent else verdict


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
    effects analysis of variance; where both are zero, V_p = max(MS_problem, MS_rest) / (S P). The half width is
    sqrt(t_{S-1}^2 V_s + t_{P-1}^2 V_p): each part pays for what it was estimated from, exact where one part is all there
    is (the modified large sample principle of Graybill and Wang 1980). Satterthwaite's single number of degrees of freedom
    rejects a true null 6 to 7 times in 100 here.
    """

    value: float
    of_seeds: float
    of_problems: float
    seeds: int
    problems: int
    of_choice: float = 0.0

    @classmethod
    def of(cls, y: NDArray[np.float64], of_choice: float = 0.0) -> _Error:
        e, size = _Effects.of(y), y.size
        of_problems = max(0.0, float(e.square_problem - e.square_rest)) / size
        if math.isclose(float(e.square_seed), 0.0, abs_tol=1e-12) and not of_problems:
            # seeds that tie by chance are no certainty
            of_problems = float(max(e.square_problem, e.square_rest)) / size
        seeds, problems = y.shape
        return cls(float(e.mean), float(e.square_seed) / size, of_problems, seeds, problems, of_choice)

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.of_seeds + self.of_problems + self.of_choice)

    def half_width(self, level: float) -> float:
        """Half of the confidence interval."""
        q = 0.5 + level / 2
        known = student_quantile(q, self.seeds - 1) ** 2 * self.of_seeds + normal_quantile(q) ** 2 * self.of_choice
        return math.sqrt(known + student_quantile(q, self.problems - 1) ** 2 * self.of_problems)

    def p_value(self) -> float:
        """One minus the level at which the interval just reaches zero."""
        if self.value == 0 or self.error == 0:
            return float(self.value == 0)
        low, high = math.log(1e-12), 0.0
        for _ in range(26):  # to one part in a million
            middle = (low + high) / 2
            low, high = (middle, high) if self.half_width(1 - math.exp(middle)) > abs(self.value) else (low, middle)
        return math.exp(high)


def seed_problem_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, of_choice: float = 0.0) -> Difference:
    """How much better method ``b`` is than ``a``, paired by training seed and problem: mean of b - a.

    Seeds and problems are both samples: Var = (MS_seed + max(0, MS_problem - MS_rest)) / (S P), the two-way random
    effects analysis of variance, with t quantiles for the number of seeds and of problems. With three seeds that is a
    wide interval, and it has to be: the spread of training is known from three numbers. With one seed only problems
    vary, and the result speaks of that one pair of runs (:func:`paired_difference`).

    Args:
        a: scores of the reference, ``[S, P]``.
        b: scores of the method, ``[S, P]``, same seeds and problems in the same order.
        level: coverage of the interval.
        of_choice: variance that both owe to the choice of their learning rates (:func:`selection_variance`).

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
    e = _Error.of(y - x, of_choice)
    half, most = e.half_width(level), _span(x, y)
    return Difference(e.value, max(-most, e.value - half), min(most, e.value + half), e.p_value(), e.error)


def seed_problem_interval(scores: ArrayLike, *, level: float = 0.95, of_choice: float = 0.0) -> Interval:
    """A method's accuracy over training seeds and problems ``[S, P]``, with both kinds of noise in the interval.

    Args:
        scores: ``[S, P]``.
        level: coverage of the interval.
        of_choice: variance that it owes to the choice of its learning rate (:func:`selection_variance`).
    """
    x = _grid(scores, 2)
    if len(x) == 1:
        return mean_interval(x[0], level)
    e = _Error.of(x, of_choice)
    half, most = e.half_width(level), _span(x)
    return Interval(e.value, max(0.0 if most == 1 else -most, e.value - half), min(most, e.value + half))


def _span(*scores: NDArray[np.float64]) -> float:
    """The largest that a score may be: 1 of accuracies; rewards know no bound."""
    return 1.0 if all(x.min() >= 0 and x.max() <= 1 for x in scores) else math.inf


def selection_variance(scores: ArrayLike, *, draws: int = 2000, seed: int = 0) -> float:
    """What a method's score owes to the luck of the search that chose its learning rate.

    With other search seeds another rate might have won. The mean scores of all rates are drawn again as often as ``draws``
    says, around what was found and as noisy as the mean square of the interaction of rate and seed says they are; each
    draw has its own winner, which is as much worse as the search found it to be. What a seed adds to all rates alike
    decides nothing.

    Args:
        scores: of the search ``[R, S]``: rates, the chosen one first, and search seeds.
        draws: how many.
        seed: decides them.

    Returns:
        Mean square of the difference to the chosen rate; 0 from one seed, which tells nothing of its noise.

    >>> selection_variance([[0.8, 0.8], [0.5, 0.5]])
    0.0
    """
    y = np.asarray(scores, dtype=np.float64)
    rates, seeds = y.shape
    if rates < 2 or seeds < 2:
        return 0.0
    means, free = y.mean(axis=1), (rates - 1) * (seeds - 1)
    rest = y - means[:, None] - y.mean(axis=0) + y.mean()
    rng = np.random.default_rng(seed)
    noise = math.sqrt(float(np.sum(rest**2)) / free / seeds)
    winner = np.argmax(means + noise * rng.standard_normal((draws, rates)), axis=1)
    return float(np.mean((means[winner] - means[0]) ** 2))


def joint_draws(
    scores: ArrayLike, *, draws: int = 10_000, seed: int = 0, of_choice: ArrayLike = 0.0
) -> NDArray[np.float64]:
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
        of_choice: variance of each method by the choice of its learning rate, ``[M]`` (:func:`selection_variance`).

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
    spread = np.broadcast_to(np.sqrt(np.asarray(of_choice, dtype=np.float64)), (len(y),))
    return total + spread * rng.standard_normal(total.shape) if spread.any() else total


def probability_of_best(
    scores: ArrayLike, *, draws: int = 10_000, seed: int = 0, of_choice: ArrayLike = 0.0
) -> list[float]:
    """Share of the joint draws in which each method has the highest score; ties are shared.

    Args:
        scores: ``[M, S, P]``.
        draws: see :func:`joint_draws`.
        seed: see :func:`joint_draws`.
        of_choice: see :func:`joint_draws`.

    >>> probability_of_best([[[0.2, 0.2]], [[0.4, 0.4]], [[0.4, 0.4]]])
    [0.0, 0.5, 0.5]
    """
    table = joint_draws(scores, draws=draws, seed=seed, of_choice=of_choice)
    top = table >= table.max(axis=1, keepdims=True) - 1e-12
    return [float(share) for share in (top / top.sum(axis=1, keepdims=True)).mean(axis=0)]


def verdict(difference: Difference, adjusted_p: float, *, alpha: float = 0.05) -> Verdict:
    """What may be said of the direction of a difference: never more than the data show.

    "better" and "worse" need the interval to exclude zero and the corrected p-value to be below ``alpha``.

    >>> verdict(Difference(0.10, 0.02, 0.18, 0.01, 0.04), 0.03)
    'better'
    """
    if difference.excludes_zero and adjusted_p < alpha:
        return "better" if difference.value > 0 else "worse"
    return "no significant difference"


def equivalent(difference: Difference, margin: float) -> bool:
    """Whether a whole interval lies within the equivalence margin, [-margin, margin] (Schuirmann 1987).

    >>> equivalent(Difference(0.041, 0.040, 0.042, 0.001, 0.0005), 0.05), equivalent(Difference(0, 0, 0, 1, 0), 0)
    (True, False)
    """
    return margin > 0 and -margin <= difference.low and difference.high <= margin


def compare_to_reference(
    scores: Mapping[str, ArrayLike],
    reference: str,
    *,
    margin: float = 0.0,
    of_choice: Mapping[str, float] | None = None,
) -> list[Comparison]:
    """Every other method of a study against one, corrected for their number by Holm's method.

    Args:
        scores: of each method ``[S, P]``, same seeds and problems.
        reference: the method that the others are compared with.
        margin: equivalence margin, in accuracy.
        of_choice: variance of each by the choice of its learning rate (:func:`selection_variance`); 0 where nothing is said.

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
    others, chance = [name for name in tables if name != reference], of_choice or {}
    differences = [
        seed_problem_difference(
            tables[reference], tables[name], of_choice=chance.get(reference, 0.0) + chance.get(name, 0.0)
        )
        for name in others
    ]
    adjusted = holm([difference.p_value for difference in differences])
    return [
        Comparison(name, difference, p, verdict(difference, p), equivalent(difference, margin))
        for name, difference, p in zip(others, differences, adjusted, strict=True)
    ]

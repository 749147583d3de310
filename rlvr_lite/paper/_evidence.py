"""What the rules of claims look at: the scores of studies, and what may be said of a difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.analysis.replication import Verdict as Direction
from rlvr_lite.analysis.replication import equivalent, in_words, seed_problem_difference, verdict
from rlvr_lite.analysis.statistics import Difference, holm, student_quantile

__all__ = [
    "Evidence",
    "Finding",
    "Judged",
    "Missing",
    "Rule",
    "Scores",
    "Verdict",
    "over_seeds",
    "paired",
]

Verdict = Literal["supported", "not supported", "undecided"]
Scores = NDArray[np.float64]


class Missing(Exception):
    """A row that a rule needs has no result; the message says why."""


@dataclass(frozen=True)
class Evidence:
    """All that rules look at.

    Attributes:
        scores: avg@k of every seed and problem by row, ``[S, P]``; same problems, and seeds in the same order.
        base: the untrained base's, ``[S, P]``.
        ratios: energy over random by ``"ROW SIDE END"`` such as ``"lora left top"``, one number a seed.
        shares: trained share of the paper's base by method, counted from its shapes, in percent.
        margin: equivalence margin, in accuracy.
        missing: why a row has no scores.
        of_choice: variance of the rows that have a search of their own, by the choice of their learning rate.
        doubt: ``f(row, effect)``, why such a row's search does not bear a verdict; empty where it does.
        rates: learning rates of the rows that have a search of their own.
    """

    scores: Mapping[str, Scores] = field(default_factory=dict)
    base: Scores | None = None
    ratios: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    margin: float = 0.0
    missing: Mapping[str, str] = field(default_factory=dict)
    of_choice: Mapping[str, float] = field(default_factory=dict)
    doubt: Callable[[str, float], str] = lambda row, effect: ""
    rates: Mapping[str, float] = field(default_factory=dict)

    def of(self, row: str) -> Scores:
        """A row's scores."""
        if row not in self.scores:
            raise Missing(f"{row}: {self.missing.get(row, 'not run')}")
        return self.scores[row]

    def against(self, row: str, reference: str) -> Difference:
        """A row minus another, paired by problem and by the seeds that both have."""
        both = row in self.of_choice and reference in self.of_choice  # rows at one and the same rate share its luck
        chance = self.of_choice[row] + self.of_choice[reference] if both else 0.0
        return paired(self.of(row), self.of(reference), chance)

    def against_base(self, row: str) -> Difference:
        """A row minus the untrained base."""
        if self.base is None:
            raise Missing("the untrained base is not scored")
        return paired(self.of(row), self.base)

    def family(self, rows: Sequence[str], reference: str) -> dict[str, Judged]:
        """Rows against a reference, Holm over these rows."""
        found = [self.against(row, reference) for row in rows]
        adjusted = holm([difference.p_value for difference in found])
        return {row: self._judged(row, reference, d, p) for row, d, p in zip(rows, found, adjusted, strict=True)}

    def _judged(self, row: str, reference: str, d: Difference, p: float) -> Judged:
        direction, within = verdict(d, p), equivalent(d, self.margin)
        if row in self.of_choice and reference in self.of_choice:
            behind = row if direction == "worse" else reference if direction == "better" else ""
            open_ = bool(behind and self.doubt(behind, d.value))
            direction = "search inconclusive" if open_ else direction
            within = within and not open_ and not any(self.doubt(label, math.inf) for label in (row, reference))
        return Judged(d, direction, within)

    def ratio(self, name: str) -> Difference:
        """Mean of a ratio over seeds, with Student's interval."""
        if name not in self.ratios:
            raise Missing(f"no spectrum of {name}: {self.missing.get(name.split()[0], 'not measured')}")
        return over_seeds(self.ratios[name])


@dataclass(frozen=True)
class Judged:
    """A difference, its direction after Holm's correction, and whether it lies within the equivalence margin."""

    difference: Difference
    direction: Direction
    within: bool

    @property
    def words(self) -> str:
        """Both together."""
        return f"{self.difference.signed} {in_words(self.direction, self.within)}"

    @property
    def matters(self) -> str:
        """Equivalence first: a significant difference within the margin is equivalent where a claim is about its size."""
        return "equivalent" if self.within else self.direction


@dataclass(frozen=True)
class Finding:
    """What may be said.

    Attributes:
        verdict: supported, not supported or undecided.
        sentence: what was found, in one sentence.
        effect: the number that decided; ``None`` where there is none.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    verdict: Verdict
    sentence: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, said: Verdict, difference: Difference, sentence: str) -> Finding:
        """With a difference as the effect."""
        return cls(said, sentence, difference.value, difference.low, difference.high)


Rule = Callable[[Evidence], Finding]


def paired(row: Scores, reference: Scores, of_choice: float = 0.0) -> Difference:
    seeds = min(len(row), len(reference))
    return seed_problem_difference(reference[:seeds], row[:seeds], of_choice=of_choice)


def over_seeds(values: Sequence[float]) -> Difference:
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        raise Missing("one seed gives no interval")
    error = float(x.std(ddof=1)) / math.sqrt(x.size)
    half = student_quantile(0.975, x.size - 1) * error
    value = float(x.mean())
    return Difference(value, value - half, value + half, math.nan, error)

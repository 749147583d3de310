"""Learning rates that all rows of a study share, and where on them the best one lies."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlvr_lite.analysis.replication import selection_variance

__all__ = ["COARSE", "MOST", "USUAL", "Optimum", "best_place", "doubt", "optimum", "place_of", "rate_at"]

#: Steps of a decade: every rate of every row is 10^(n/4).
_STEPS = 4
#: The coarse pass: half decades around the place nearest to a row's own rate.
COARSE = (-4, -2, 0, 2, 4)
#: Rates of the fine pass: at most, and as many as a search usually needs.
MOST, USUAL = 9, 4


def place_of(rate: float) -> int:
    """The place on the lattice nearest to a rate.

    >>> place_of(1e-3), place_of(2e-3), place_of(1.8e-3)
    (-12, -11, -11)
    """
    return round(_STEPS * math.log10(rate))


def rate_at(place: int) -> float:
    """The rate at a place, 10^(place / 4), in two figures.

    >>> [rate_at(n) for n in (-12, -11, -10, -9, -8)]
    [0.001, 0.0018, 0.0032, 0.0056, 0.01]
    """
    return float(f"{10 ** (place / _STEPS):.2g}")


def best_place(means: Mapping[int, float | None], start: int) -> int | None:
    """The best of these places; of equals the one nearest to where the search began, then the lower.

    Args:
        means: score by place, ``None`` where a run failed.
        start: the place that the search began from.
    """
    alive = {place: mean for place, mean in means.items() if mean is not None}
    return min(alive, key=lambda place: (-alive[place], abs(place - start), place)) if alive else None


@dataclass(frozen=True)
class Optimum:
    """The best rate of a search, its neighbours a quarter of a decade away, and what the choice owes to chance.

    Attributes:
        place: of the best.
        score: its mean over the search's seeds.
        below: mean one step below; ``None`` where that was not tried or a run failed.
        above: the same one step above.
        variance: of the true score at the chosen rate, over the search's seeds.
    """

    place: int
    score: float
    below: float | None
    above: float | None
    variance: float

    @property
    def inside(self) -> bool:
        """Whether both neighbours ran, so that the best lies between rates that do no better."""
        return self.below is not None and self.above is not None

    @property
    def drop(self) -> float:
        """How far the worse neighbour lies below the best; infinite at an edge."""
        return (
            self.score - min(self.below, self.above) if self.below is not None and self.above is not None else math.inf
        )


def optimum(scores: Mapping[int, Sequence[float | None]], best: int) -> Optimum:
    """What a finished fine pass says of its best rate.

    Args:
        scores: by place, one score a search seed, ``None`` where it failed.
        best: the place that was chosen.
    """
    whole = {place: [s for s in row if s is not None] for place, row in scores.items() if None not in row}
    means = {place: float(np.mean(row)) for place, row in whole.items()}
    table = (tuple(whole[best]), *(tuple(row) for place, row in whole.items() if place != best))
    return Optimum(best, means[best], means.get(best - 1), means.get(best + 1), _variance(table))


def doubt(found: Optimum | None, base: float | None, effect: float = math.inf) -> str:
    """Why a search leaves open what a row could reach; empty where it does not.

    A rate that is low enough leaves the base as it is, so a search whose best lies below the base has not gone low enough.

    Args:
        found: by the search; ``None`` without one.
        base: the least that the untrained base is held to score; ``None`` where that is not known.
        effect: a difference that is to be believed: a neighbour of the best rate must not lie further below it.
    """
    if found is None:
        return ""
    rate = f"{rate_at(found.place):g}"
    if base is not None and found.score < base:
        return f"no learning rate that was tried reaches the untrained base ({rate} comes nearest)"
    if not found.inside:
        side = "lowest" if found.below is None else "highest"
        return f"its best learning rate, {rate}, is the {side} that was tried and worked"
    if found.drop > abs(effect):
        return f"a quarter of a decade beside its best learning rate, {rate}, the score falls by {found.drop:.3f}"
    return ""


@functools.lru_cache(maxsize=1024)
def _variance(table: tuple[tuple[float, ...], ...]) -> float:
    return selection_variance(table)

"""A row of a study as it stands on disk, and what the search for its learning rate saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.analysis.statistics import Interval
from rlvr_lite.config import RunConfig
from rlvr_lite.study._lattice import Optimum
from rlvr_lite.training import Run

__all__ = ["MEMORY_NOISE", "Row", "SearchResult", "fine_scores", "good_band", "seconds_of", "tried"]

#: Share of a peak of memory within which rows hold the same.
MEMORY_NOISE = 0.05


@dataclass(frozen=True)
class SearchResult:
    """One run of a learning-rate search.

    Attributes:
        learning_rate: that was tried.
        steps: it was trained for.
        rung: 0 in the coarse pass of the search, 1 in the fine one.
        score: accuracy on the validation split; ``None`` where it failed or is not done.
        status: ``done``, ``failed`` or ``open``.
        seed: of the run.
    """

    learning_rate: float
    steps: int
    rung: int
    score: Interval | None
    status: str
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One row of a comparison.

    Attributes:
        label: its name.
        config: of its runs; the seed in it means nothing.
        learning_rate: it is compared at; ``None`` as long as it is not known.
        search: the results of the search for it.
        runs: finished runs of the comparison by seed.
        scores: avg@k of every seed and problem, ``[S, P]``; ``None`` until every seed is done.
        problem: why the row is incomplete; empty if it is complete.
        optimum: what its search found; ``None`` as long as that is not over, or without one.
    """

    label: str
    config: RunConfig
    learning_rate: float | None
    search: tuple[SearchResult, ...]
    runs: Mapping[int, Run]
    scores: NDArray[np.float64] | None
    problem: str
    optimum: Optimum | None = None


def tried(row: Row) -> str | None:
    """The rates of a row's fine pass and where the best of them lies."""
    fine = [t.learning_rate for t in row.search if t.rung]
    if row.optimum is None or not fine:
        return None
    where = "best inside" if row.optimum.inside else "best at the edge"
    return f"{min(fine):g} to {max(fine):g}, {where}"


def fine_scores(row: Row) -> dict[float, Interval]:
    """Score by rate of a row's fine pass, the mean over the search's seeds with the mean of their intervals; no failed rate."""
    found: dict[float, list[Interval | None]] = {}
    for t in row.search:
        if t.rung:
            found.setdefault(t.learning_rate, []).append(t.score)
    whole = {rate: [s for s in scores if s is not None] for rate, scores in found.items() if None not in scores}
    return {rate: Interval(*(float(np.mean([getattr(s, end) for s in scores])) for end in ("value", "low", "high")))
            for rate, scores in sorted(whole.items())}  # fmt: skip


def good_band(scores: Mapping[float, Interval]) -> list[float]:
    """Rates next to each other, the best among them, that do as well as it within its interval."""
    rates = sorted(scores)
    values = [scores[rate].value for rate in rates]
    first = last = values.index(max(values))
    least = scores[rates[first]].low
    while first and values[first - 1] >= least:
        first -= 1
    while last + 1 < len(values) and values[last + 1] >= least:
        last += 1
    return rates[first : last + 1]


def seconds_of(run: Run) -> float:
    """What a finished run took, scoring included."""
    return sum(value for name, value in run.outcome["seconds"].items() if name != "step")

"""How often the verdicts of a study are wrong, by simulation: ``python -m tests.benchmarks.verdicts [--studies N]``.

A simulated method has a true score at every learning rate, with a peak of its own; runs scatter around it by training seed,
by problem and by answer. Each study searches on the package's lattice as a real one does (coarse, then fine, with search
seeds), trains its seeds at the rate that won, and is judged by the code that judges real studies. Nothing is trained.

- ``same``: two methods of one and the same curve. Any "better" or "worse" is false.
- ``other peak``: the curves are equal but for where they peak, off the lattice and in other places. As false.
- ``gain 0.1``: the second is better by 0.1 everywhere. Found as better, or wrongly as worse.
- ``within 0.5 margins`` and ``beyond 1.1``: the second is better by that share of the margin; "within the equivalence margin" of
  the latter is false.

Coverage: how often the interval of the difference holds the difference of what the two methods' searches end at on average.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.analysis.replication import compare_to_reference
from rlvr_lite.config import RunConfig
from rlvr_lite.study import Design, Trial, Variant
from rlvr_lite.study._lattice import doubt, rate_at
from rlvr_lite.table import Table

PROBLEMS, ANSWERS, SEEDS, MARGIN = 100, 8, 5, 0.1


@dataclasses.dataclass(frozen=True)
class Truth:
    """A method: the peak of its curve in decades, its height, and how wide the curve is in decades."""

    peak: float
    height: float = 0.75
    width: float = 1.5

    def score(self, rate: float) -> float:
        """Mean accuracy at a rate; never below what the untrained base has."""
        return max(0.2, self.height - 0.5 * ((math.log10(rate) - self.peak) / self.width * 2) ** 2)


def simulated(truth: Truth, rng: np.random.Generator, hard: NDArray[np.float64], rate: float, seed_sd: float) -> Any:
    """Scores of one run, ``[P]``: its level moved by its seed, each problem as hard as it is, a little of its own, k answers."""
    level = truth.score(rate) + seed_sd * rng.standard_normal()
    chance = np.clip(level + hard + 0.05 * rng.standard_normal(len(hard)), 0, 1)
    return rng.binomial(ANSWERS, chance) / ANSWERS


def study(truths: dict[str, Truth], rng: np.random.Generator, seed_sd: float, search_seeds: int = 2) -> tuple[Any, Any]:
    """One study: the verdict on the second method as a study says it, and the difference that it found."""
    variants = tuple(Variant(name, {"method": "lora", "learning_rate": 1e-3}) for name in truths)
    shared = RunConfig(steps=40, eval_problems=PROBLEMS)
    reference, other = truths
    design = Design(variants, shared, "tiny", tuple(range(SEEDS)), reference=reference, search_seeds=search_seeds)
    hard, held_out = (0.15 * rng.choice([-1, 1], PROBLEMS) for _ in range(2))
    scores: dict[str, float | None] = {}
    while fresh := [t for t in design.known(scores) if t.stage == "search" and t.key not in scores]:
        for trial in fresh:
            found = simulated(truths[trial.variant], rng, hard, trial.config.learning_rate or 1.0, seed_sd)
            scores[trial.key] = float(found.mean())
    best = {v.label: found for v in variants if (found := design.optimum(v, scores)) is not None}
    tables = {
        name: np.stack([simulated(truth, rng, held_out, rate_at(best[name].place), seed_sd) for _ in range(SEEDS)])
        for name, truth in truths.items()
    }
    chance = {name: found.variance for name, found in best.items()}
    (c,) = compare_to_reference(tables, reference, margin=MARGIN, of_choice=chance)
    behind = {"worse": other, "better": reference}.get(c.verdict)
    open_ = behind is not None and bool(doubt(best[behind], 0.2, c.difference.value))
    edges = any(doubt(found, 0.2) for found in best.values())
    verdict = "search inconclusive" if open_ else c.verdict
    return dataclasses.replace(c, verdict=verdict, equivalent=c.equivalent and not open_ and not edges), c.difference


def reached(truth: Truth, rng: np.random.Generator, seed_sd: float, searches: int = 150) -> float:
    """What a method's search ends at on average, in true accuracy."""
    found = []
    variant = Variant("a", {"method": "lora", "learning_rate": 1e-3})
    design = Design((variant,), RunConfig(steps=40, eval_problems=PROBLEMS), "tiny", (0,), reference="a")
    for _ in range(searches):
        hard = 0.15 * rng.choice([-1, 1], PROBLEMS)
        scores: dict[str, float | None] = {}
        while fresh := [t for t in design.known(scores) if t.stage == "search" and t.key not in scores]:
            scores |= {t.key: float(simulated(truth, rng, hard, _rate(t), seed_sd).mean()) for t in fresh}
        best = design.optimum(variant, scores)
        assert best is not None
        found.append(truth.score(rate_at(best.place)))
    return float(np.mean(found))


def _rate(trial: Trial) -> float:
    return trial.config.learning_rate or 1.0


def cases(rng: np.random.Generator) -> dict[str, tuple[Truth, Callable[[Truth], Truth]]]:
    """What is compared: the reference, and how the other differs from it."""
    peak = float(rng.uniform(-3.5, -2.5))
    other = float(rng.uniform(-3.5, -2.5))
    return {
        "same": (Truth(peak), lambda t: t),
        "other peak": (Truth(peak), lambda t: dataclasses.replace(t, peak=other)),
        "other peak, narrow": (Truth(peak, width=0.8), lambda t: dataclasses.replace(t, peak=other)),
        "gain 0.1": (Truth(peak, 0.65), lambda t: dataclasses.replace(t, height=t.height + 0.1)),
        "within 0.5 margins": (Truth(peak), lambda t: dataclasses.replace(t, height=t.height + 0.5 * MARGIN)),
        "beyond 1.1 margins": (Truth(peak, 0.65), lambda t: dataclasses.replace(t, height=t.height + 1.1 * MARGIN)),
    }


def simulate(name: str, studies: int, seed_sd: float, seed: int = 0, search_seeds: int = 2) -> dict[str, float]:
    """Shares of the verdicts in one case, and coverage."""
    rng = np.random.default_rng(seed)
    said: dict[str, int] = {}
    covered = within = 0
    for number in range(studies):
        if number % 25 == 0:  # a new pair of curves, and what their searches reach
            one, change = cases(rng)[name]
            two = change(one)
            truth = (
                reached(two, rng, seed_sd) - reached(one, rng, seed_sd)
                if one.peak != two.peak
                else two.height - one.height
            )
        c, d = study({"a": one, "b": two}, rng, seed_sd, search_seeds)
        said[c.verdict] = said.get(c.verdict, 0) + 1
        within += c.equivalent
        covered += d.low <= truth <= d.high
    names = ("better", "worse", "no significant difference", "search inconclusive")
    return {n: said.get(n, 0) / studies for n in names} | {
        "within margin": within / studies,
        "coverage": covered / studies,
    }


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--studies", type=int, default=400)
    options.add_argument("--seed-sd", type=float, nargs="*", default=[0.02, 0.05])
    chosen = options.parse_args()
    rows: list[dict[str, Any]] = [
        {"case": name, "seed sd": sd, **simulate(name, chosen.studies, sd)}
        for sd in chosen.seed_sd
        for name in cases(np.random.default_rng(0))
    ]
    note = f"{chosen.studies} studies a row, {SEEDS} seeds, 2 search seeds, {PROBLEMS} problems x {ANSWERS}, margin {MARGIN}."
    print(Table.of(rows, title="Verdicts of simulated studies", note=note))


if __name__ == "__main__":
    main()

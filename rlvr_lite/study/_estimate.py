"""What is left of a study before it goes on: runs, generated tokens, hours and disk, without what its folder has already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rlvr_lite.config import RunConfig
from rlvr_lite.planning import Cost, cost_table, plan_without_task, run_cost, score_cost
from rlvr_lite.records import is_file
from rlvr_lite.runs import STUDY
from rlvr_lite.study._design import Design
from rlvr_lite.study._store import Store
from rlvr_lite.table import Table
from rlvr_lite.training import Run

__all__ = ["Estimate", "estimate_of"]


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        parts: by what it is for.
        done: runs that are done already, and not counted.
    """

    parts: Mapping[str, Cost]
    done: int = 0

    @property
    def whole(self) -> Cost:
        """All of it."""
        return sum(self.parts.values(), Cost(0, 0, 0, 0))

    @property
    def hours(self) -> float:
        """Hours of one device."""
        return self.whole.hours

    @property
    def table(self) -> Table:
        """A row a part."""
        return cost_table(self.parts, f"Cost{self._done}")

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.whole}{self._done}"

    @property
    def _done(self) -> str:
        return f", without {self.done} run{'s' * (self.done != 1)} done already" if self.done else ""

    def __str__(self) -> str:
        return str(self.table)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.line})"

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def estimate_of(design: Design, root: Path, gpu: str | None = None) -> Estimate:
    """What a study in a directory has left.

    How long a search goes on is not known before: rates that cannot be named yet are taken for as many as a search usually
    needs. Where runs of the study are done on this machine, the assumed throughput is replaced by theirs.

    Args:
        design: of the study.
        root: its directory, which need not be there.
        gpu: a card that hours are given for; ``None`` takes this machine's device.
    """
    store = Store(root)
    scores = store.accuracies(design) if is_file(root / STUDY) else {}
    trials = design.known(scores)
    done = [trial for trial in trials if trial.key in scores and trial.stage != "base"]
    costs: dict[str, Cost] = {}

    def cost(config: RunConfig, stage: str) -> Cost:
        key = repr((stage, replace(config, seed=0, learning_rate=None)))
        if key not in costs:
            plan = plan_without_task(config, gpu)
            costs[key] = score_cost(plan) if stage == "base" else run_cost(plan)
        return costs[key]

    factor, source = _measured(((store.run(t), cost(t.config, t.stage)) for t in done), gpu)
    names = {"base": "scoring the base", "search": "learning-rate search", "final": "comparison"}
    parts: dict[str, Cost] = {}
    for config, stage, count in design.left(scores):
        one = cost(config, stage)
        one = replace(one, seconds=factor * one.seconds, source=source or one.source).times(count)
        label = names[stage]
        parts[label] = parts[label] + one if label in parts else one
    return Estimate(parts, len(done))


def _measured(done: Iterable[tuple[Run, Cost]], gpu: str | None) -> tuple[float, str]:
    """Seconds that finished runs took over those that were assumed for them; another card's are not measured by them."""
    pairs = [
        (sum(v for name, v in found["seconds"].items() if name != "step"), cost.seconds)
        for run, cost in done
        if run.settled and "seconds" in (found := run.summary)
    ]
    if gpu is not None or not pairs:
        return 1.0, ""
    plural = "s" * (len(pairs) != 1)
    return sum(a for a, _ in pairs) / sum(b for _, b in pairs), f"measured on {len(pairs)} run{plural} of this study"

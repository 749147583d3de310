"""What a study's search saw, and what its rows cost, as tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvr_lite.study._row import MEMORY_NOISE, fine_scores, good_band, tried
from rlvr_lite.table import Table

if TYPE_CHECKING:
    from rlvr_lite.study._study import Study

__all__ = ["costs", "learning_rates"]

_RATES_NOTE = (
    "On the lattice 10^(n/4), scored on the validation split with seeds of the search's own. A step below and above: the "
    "score a quarter of a decade beside the chosen rate, less that at it. By chance: the standard deviation of what the row "
    "scores by the luck of the choice."
)


def learning_rates(study: Study) -> Table:
    """See ``Study.learning_rates``."""
    rows: list[dict[str, Any]] = []
    for label, row in study.rows.items():
        fine = fine_scores(row)
        trials: dict[str, Any] = {"row": label, "chosen": row.learning_rate}
        if fine and row.optimum is not None:
            good = good_band(fine)
            trials |= {
                "tried": tried(row),
                "good from": min(good),
                "to": max(good),
                "decades": round(math.log10(max(good) / min(good)) + 0.25, 2),
                "a step below": _gap(row.optimum.below, row.optimum.score),
                "a step above": _gap(row.optimum.above, row.optimum.score),
                "by chance": round(math.sqrt(row.optimum.variance), 4),
                "at the edge": not row.optimum.inside,
                "trials": len(row.search),
                "failed": sum(t.status == "failed" for t in row.search),
            }
        rows.append(trials)
    return Table.of(rows, title="Learning rates", note=_RATES_NOTE)


def _gap(neighbour: float | None, best: float) -> float | None:
    return None if neighbour is None else round(neighbour - best, 4)


def costs(study: Study) -> Table:
    """See ``Study.costs``."""
    rows, differs = [], study.memory_differs
    sizes_held = [size for label in study.rows if (size := study.peak_memory(label))]
    for label, row in study.rows.items():
        seconds, memory = study.train_seconds(label), study.peak_memory(label)
        tokens = [sum(m.get("tokens/sampled", 0) for m in run.metrics()) for run in row.runs.values()]
        sizes = [sum(f.stat().st_size for f in run.files.adapter.iterdir()) for run in row.runs.values()]
        rows.append(
            {
                "row": label,
                "trained": study.trained_parameters(label),
                **({"peak MiB": None if memory is None else round(memory / 2**20)} if differs else {}),
                "train s": None if seconds is None else round(seconds, 1),
                "search s": round(study.search_seconds[label], 1),
                "rollout tokens": int(np.median(tokens)) if tokens else None,
                "adapter KiB": round(float(np.median(sizes)) / 1024, 1) if sizes else None,
            }
        )
    note = "Medians over seeds; seconds of the machine it ran on."
    if sizes_held and not differs:
        note += f" Peak memory was the same, {round(max(sizes_held) / 2**20):,} MiB to within {MEMORY_NOISE:.0%}."
    return Table.of(rows, title="Costs", note=note)

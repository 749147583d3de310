"""Show what a directory holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from rlvr_lite.errors import UserError, as_written, printable

__all__ = ["show"]


def show(directory: Annotated[Path, tyro.conf.Positional], *, samples: int = 0, plot: Path | None = None) -> None:
    """Show a run, an evaluation or a study: its outcome, some of its answers, its picture.

    Args:
        directory: of the run, the evaluation or the study.
        samples: how many different answers to print; of a run, of its last step.
        plot: write the picture to this file.
    """
    from rlvr_lite.api import load

    if samples < 0:
        raise UserError(f"--samples must be at least 0, got {samples}")
    found = load(directory)
    print(found)
    with as_written(directory):
        _print_samples(found, directory, samples)
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")


def _print_samples(found: Any, directory: Path, samples: int) -> None:
    from rlvr_lite.evaluation import Evaluation
    from rlvr_lite.training import Run

    if isinstance(found, Run):
        rows = found.rollouts() if samples else []
        for row in _different([row for row in rows if row["step"] == rows[-1]["step"]], samples):
            gold = "" if row.get("answer") is None else f"  gold answer {row['answer']}"
            print(printable(f"\n{row['id']}{gold}  reward {row['reward']}\n{row['completion']}"))
    elif isinstance(found, Evaluation):
        rows = [row for benchmark in found for row in found.samples(benchmark)] if samples else []
        for row in _different(rows, samples):
            print(printable(f"\n{row['id']}  {'right' if row['correct'] else 'wrong'}\n{row['completion']}"))
    elif samples:
        raise UserError(f"{directory} is a study: give one of the runs in it to see answers")


def _different(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """So many answers: one a problem first, then others to the same problems, none of them twice."""
    seen: set[tuple[str, str]] = set()
    rounds: dict[str, int] = {}
    order: list[tuple[int, int, Mapping[str, Any]]] = []
    for place, row in enumerate(rows):
        if (row["id"], row["completion"]) not in seen:
            seen.add((row["id"], row["completion"]))
            rounds[row["id"]] = rounds.get(row["id"], 0) + 1
            order.append((rounds[row["id"]], place, row))
    return [row for _, _, row in sorted(order, key=lambda found: found[:2])[:count]]

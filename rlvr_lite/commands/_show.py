"""Show what a directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from rlvr_lite.errors import UserError, printable

__all__ = ["show"]


def show(directory: Annotated[Path, tyro.conf.Positional], *, samples: int = 0, plot: Path | None = None) -> None:
    """Show a run, an evaluation or a study: its outcome, some of its answers, its picture.

    Args:
        directory: of the run, the evaluation or the study.
        samples: how many answers to print; of a run, of its last step.
        plot: write the picture to this file.
    """
    from rlvr_lite.api import load
    from rlvr_lite.evaluation import Evaluation
    from rlvr_lite.training import Run

    found = load(directory)
    print(found)
    if isinstance(found, Run):
        rows = found.rollouts()
        last = [row for row in rows if row["step"] == rows[-1]["step"]][:samples] if samples and rows else []
        for row in last:
            print(printable(f"\n{row['id']}  answer {row['answer']}  reward {row['reward']}\n{row['completion']}"))
    elif isinstance(found, Evaluation):
        for row in [row for benchmark in found for row in found.samples(benchmark)][:samples] if samples else []:
            print(printable(f"\n{row['id']}  {'right' if row['correct'] else 'wrong'}\n{row['completion']}"))
    elif samples:
        raise UserError(f"{directory} is a study: give one of the runs in it to see answers")
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")

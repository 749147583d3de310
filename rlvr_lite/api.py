"""What needs several rooms at once: opening what lies on disk, and setting runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import EVALUATION_FILE, Evaluation
from rlvr_lite.records import is_file
from rlvr_lite.runs import STUDY
from rlvr_lite.study import Study
from rlvr_lite.training import Run
from rlvr_lite.typed import as_path

if TYPE_CHECKING:
    from rlvr_lite.analysis.spectrum import Spectrum

__all__ = ["load", "spectrum"]


def load(directory: str | Path) -> Run | Evaluation | Study:
    """What a directory holds.

    Args:
        directory: of a run, of an evaluation (the ``eval/`` of a run, or the ``out`` of ``evaluate``) or of a study.

    Raises:
        UserError: it does not exist, or holds nothing that this package wrote.
    """
    path = as_path("directory", directory)
    if is_file(path / STUDY):
        return Study.load(path)
    if is_file(path / EVALUATION_FILE) and not is_file(path / "config.json"):
        return Evaluation.load(path)
    return Run.load(path)


def spectrum(runs: Run | str | Path | Sequence[Run | str | Path], *, cache: str | Path | None = None) -> Spectrum:
    """Where in the spectrum of the base weights did training go?

    Args:
        runs: one run or several on the same base, or their directories.
        cache: directory that keeps the base's decompositions, for the next call.

    Returns:
        Tables in words and numbers, plots, and JSON; see ``rlvr_lite.analysis.spectrum``.

    Raises:
        UserError: a run is not finished, not proven or damaged, or stands on another base than the first.
    """
    from rlvr_lite.analysis.spectrum import compare_updates
    from rlvr_lite.exports import updates_of

    given = [runs] if isinstance(runs, Run | str) or not isinstance(runs, Iterable) else list(runs)
    found = [run if isinstance(run, Run) else Run.load(run) for run in given]
    for run in found:
        run.gate()
    labels = _labelled(found)
    bases = {label: run.adapter["base"]["hash"] for label, run in labels.items()}
    for label, base in bases.items():
        if base != next(iter(bases.values())):
            raise UserError(
                f"run {label!r} stands on another base than {next(iter(bases))!r}: compare runs on one base"
            )
    updates = {label: updates_of(run) for label, run in labels.items()}
    trajectories = {label: rows for label, run in labels.items() if (rows := _followed(run))}
    return compare_updates(updates, cache=None if cache is None else Path(cache), trajectories=trajectories)


def _labelled(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs under their methods, or with their directories where a method occurs twice."""
    by_method = [run.config.method for run in runs]
    by_name = [f"{method} ({run.directory.name})" for method, run in zip(by_method, runs, strict=True)]
    for labels in (by_method, by_name, [str(run.directory) for run in runs]):
        if len(set(labels)) == len(runs):
            return dict(zip(labels, runs, strict=True))
    raise UserError("a run is given twice: name each once")


def _followed(run: Run) -> list[dict[str, Any]]:
    """The rows of the live probe, if the run had one."""
    rows = [{k: v for k, v in row.items() if k == "step" or k.startswith("spectrum/")} for row in run.metrics()]
    return [row for row in rows if len(row) > 1]

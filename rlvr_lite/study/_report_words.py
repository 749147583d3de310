"""What a study says, in plain words: what was compared, what may be concluded, and what finding out cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from rlvr_lite.analysis.replication import seed_problem_interval
from rlvr_lite.study._design import ONE_SEED

if TYPE_CHECKING:
    from rlvr_lite.analysis.replication import Comparison
    from rlvr_lite.config import RunConfig
    from rlvr_lite.study._study import Study

__all__ = ["config_text", "differing", "duration", "method_words", "verdict_words"]

_MEANING = {
    "equivalent": "equivalent to",
    "better": "better than",
    "worse": "worse than",
}
_OF_RUNS = {
    "equivalent": "its run is as good as that of",
    "better": "its run scores higher than that of",
    "worse": "its run scores lower than that of",
}


def duration(seconds: float) -> str:
    """A time span in two units at most.

    >>> duration(42.4), duration(3700), duration(200_000)
    ('42 s', '1 h 1 min', '2 d 7 h')
    """
    left = round(seconds)
    for unit, smaller, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{left} s"


def verdict_words(study: Study) -> list[str]:
    """What may be said of the rows, most important first."""
    reference = study.design.reference
    lines = [ONE_SEED] if study.design.of_runs else []
    meaning = _OF_RUNS if study.design.of_runs else _MEANING
    found = [c for label in study.rows if (c := study.comparison(label)) is not None]
    for verdict in ("better", "worse", "equivalent"):
        for c in sorted((c for c in found if c.verdict == verdict), key=lambda c: -abs(c.difference.value)):
            d = c.difference
            within = f" within {study.design.zone:g}" if verdict == "equivalent" else ""
            by = "" if verdict == "equivalent" else f" by {abs(d.value):.3f}"
            ends = (-d.high, -d.low) if verdict == "worse" else (d.low, d.high)
            lines.append(f"{c.method}: {meaning[verdict]} {reference}{by}{within} [{ends[0]:.3f}, {ends[1]:.3f}].")
    lines += _silence([c for c in found if c.verdict == "no difference shown"], len(found), reference)
    own = study.accuracy(reference)
    if own is not None:
        lines.append(f"{reference}, which the others are compared with, scores {study.metric} {own}.")
    else:
        lines.append(f"Nothing is compared yet: {reference}, the reference, is incomplete.")
    if study.base is not None:
        lines.append(f"The untrained base scores {study.metric} {seed_problem_interval(study.base)}.")
    lines += [f"{label}: no result, {row.problem}." for label, row in study.rows.items() if row.problem]
    return lines


def _silence(found: Sequence[Comparison], compared: int, reference: str) -> list[str]:
    """Rows of which no difference can be said: those that are open, and those that only the correction holds back."""
    held_back = [c for c in found if c.difference.excludes_zero]
    undecided = [c for c in found if not c.difference.excludes_zero]
    lines = []
    if held_back:
        one = len(held_back) == 1
        lines.append(
            f"{_listed(c.method for c in held_back)}: no difference to {reference} shown. {'Its' if one else 'Their'} own "
            f"{'interval excludes' if one else 'intervals exclude'} zero, but not after the correction for {compared} "
            "comparisons: more seeds, or a study of fewer rows, can decide."
        )
    if undecided:
        halves = [(c.difference.high - c.difference.low) / 2 for c in undecided]
        half, widest = float(np.median(halves)), max(halves)
        said = f"{_listed(c.method for c in undecided)}: no difference to {reference} shown."
        hidden = (
            f" That is not the same as equal: what is smaller than half an interval, here {half:.3f} in the median, "
            "stays hidden."
        )
        lines.append(said + hidden if widest else f"{said} Mean scores are the same in every seed.")
    return lines


def method_words(study: Study) -> list[str]:
    """How the comparison was made."""
    design, shared = study.design, study.design.shared
    seeds = f"seed{'s' if len(design.seeds) > 1 else ''} {', '.join(map(str, design.seeds))}"
    lines = [
        f"{len(study.rows)} rows on task {shared.task}, base {shared.base}, training {seeds}. All share prompts and "
        f"their order, and are scored on the same {shared.eval_problems} problems of the {shared.eval_split} split, "
        f"{shared.eval_k} answers each.",
        _accounting(study),
        _search(study),
        "Intervals are of 95 %, over training seeds and problems, paired; p-values are Holm's, over all rows. Better "
        "or worse is said only where the interval excludes zero and the corrected p-value is below 0.05.",
    ]
    if len(design.seeds) == 1:
        lines.append(
            "One training seed: the intervals hold the noise of problems only, and speak of these runs, not of the "
            "methods. Add seeds before choosing by them."
        )
    if design.zone:
        lines.append(f"Equivalent means that the whole interval lies within {design.zone:g} of the reference.")
    return lines


def _accounting(study: Study) -> str:
    configs = [row.config for row in study.rows.values()]
    steps = sorted({config.steps for config in configs if config.steps})
    span = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    if study.design.budget is not None:
        return f"Equal rollouts: each run may draw {study.design.budget:,} completions, which makes {span} steps."
    rows = sorted({c.prompts_per_step * c.group_size for c in configs if c.prompts_per_step})
    size = (
        f" of {rows[0]} completions" if len(rows) == 1 else f" of {rows[0]} to {rows[-1]} completions" if rows else ""
    )
    unequal = "" if len(rows) <= 1 and len(steps) <= 1 else " Rows differ in what they draw: see their configurations."
    return f"Equal steps: each run takes {span} steps{size}.{unequal}"


def _search(study: Study) -> str:
    if study.design.tune == "none":
        return "No learning rate was searched: each row takes its default or what it was given."
    trials = [len(row.search) for row in study.rows.values()]
    spent = sum(study.search_seconds.values())
    runs = [run for row in study.rows.values() for run in row.runs.values()]
    own = sum(run.summary["seconds"].get("train", 0.0) for run in runs)
    edge = [str(cells["row"]) for cells in study.learning_rates if cells.get("at the edge")]
    warning = f" The chosen rate lies at the edge of what was tried in {_listed(edge)}." if edge else ""
    return (
        "Every row had the same learning-rate search: rates half a decade apart around the method's default, half the "
        "steps each, the best of them all steps, scored on the validation split with a seed of its own. That took "
        f"{sum(trials)} runs and {duration(spent)}; the compared runs trained for {duration(own)}.{warning}"
    )


def _listed(names: Iterable[str]) -> str:
    """Names as a sentence lists them."""
    found = list(names)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def config_text(config: RunConfig) -> str:
    """A row's configuration as JSON, without the seed, which differs from run to run."""
    fields = {name: value for name, value in asdict(config).items() if name != "seed"}
    return json.dumps(fields, indent=2, ensure_ascii=False)


def differing(configs: Sequence[RunConfig]) -> list[str]:
    """Fields in which rows differ from each other, in their order."""
    tables = [asdict(config) for config in configs]
    return [name for name in tables[0] if name != "seed" and any(t[name] != tables[0][name] for t in tables)]

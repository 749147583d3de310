"""What a study says, in plain words: what was compared, what may be concluded, and what finding out cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from rlvr_lite.analysis.replication import seed_problem_interval
from rlvr_lite.progress import duration
from rlvr_lite.study._design import ONE_SEED

if TYPE_CHECKING:
    from rlvr_lite.analysis.replication import Comparison
    from rlvr_lite.config import RunConfig
    from rlvr_lite.study._study import Study

__all__ = ["config_text", "differing", "method_words", "optim_words", "verdict_words"]


def verdict_words(study: Study) -> list[str]:
    """What may be said of the rows, most important first."""
    reference = study.design.reference
    lines = [ONE_SEED] if study.design.of_runs else []
    found = [c for label in study.rows if (c := study.comparison(label)) is not None]
    for kind in ("better", "worse", "equivalent"):
        alike = [c for c in found if c.words.partition(",")[0] == kind]
        lines += [_sentence(study, c) for c in sorted(alike, key=lambda c: -abs(c.difference.value))]
    lines += [_open_search(study, c) for c in found if c.verdict == "search inconclusive"]
    lines += _silence([c for c in found if c.words == "no significant difference"], len(found), reference)
    if study.design.margin:
        lines.append(f"{study.margin_words[0].upper()}{study.margin_words[1:]}.")
    own = study.accuracy(reference)
    if own is not None:
        lines.append(f"{reference}, which the others are compared with, scores {study.metric} {own}.")
    else:
        lines.append(f"Nothing is compared yet: {reference}, the reference, is incomplete.")
    if study.base is not None:
        lines.append(f"The untrained base scores {study.metric} {seed_problem_interval(study.base)}.")
    else:
        lines.append(f"The untrained base: no score, {study.base_problem}.")
    lines += [f"{label}: no result, {row.problem}." for label, row in study.rows.items() if row.problem]
    return lines


def _sentence(study: Study, c: Comparison) -> str:
    """Direction and equivalence of a difference, with its interval."""
    reference, d = study.design.reference, c.difference
    runs = study.design.of_runs
    if c.verdict == "no significant difference":
        how = f"its run is as good as that of {reference}" if runs else f"equivalent to {reference}"
        return f"{c.method}: {how}, {c.difference.signed}, within the equivalence margin of {study.margin:.3g}."
    way = "higher" if c.verdict == "better" else "lower"
    how = f"its run scores {way} than that of" if runs else f"{way} than"
    within = "within" if c.equivalent else "not shown to be within"
    margin = f", {within} the equivalence margin of {study.margin:.3g}" if study.margin else ""
    ends = (-d.high, -d.low) if c.verdict == "worse" else (d.low, d.high)
    return f"{c.method}: {how} {reference} by {abs(d.value):.3f} [{ends[0]:.3f}, {ends[1]:.3f}]{margin}."


def _open_search(study: Study, c: Comparison) -> str:
    """A row that cannot be ranked, and why."""
    reference, size = study.design.reference, c.difference.value
    labels = (c.method, reference) if size < 0 else (reference, c.method)
    why = next((f"of {label} {said}" for label in labels if (said := study.search_doubt(label, size))), "")
    return f"{c.method}: {c.difference.signed} against {reference}, which ranks nothing, for the search is inconclusive: {why}."


def _silence(found: Sequence[Comparison], compared: int, reference: str) -> list[str]:
    """Rows of which no difference can be said: those that are open, and those that only the correction holds back."""
    held_back = [c for c in found if c.difference.excludes_zero]
    undecided = [c for c in found if not c.difference.excludes_zero]
    lines = []
    if held_back:
        one = len(held_back) == 1
        lines.append(
            f"{_listed(c.method for c in held_back)}: no significant difference to {reference}. {'Its' if one else 'Their'} own "
            f"{'interval excludes' if one else 'intervals exclude'} zero, but not after the correction for {compared} "
            "comparisons: more seeds, or a study of fewer rows, can decide."
        )
    if undecided:
        halves = [(c.difference.high - c.difference.low) / 2 for c in undecided]
        half, widest = float(np.median(halves)), max(halves)
        said = f"{_listed(c.method for c in undecided)}: no significant difference to {reference}."
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
        f"{_accounting(study)} {optim_words([row.config for row in study.rows.values()])}.",
        _search(study),
        "Intervals are of 95 %, over training seeds and problems, paired, and hold what a row owes to the luck of its "
        "search; p-values are Holm's, over all rows. Better or worse is said only where the interval excludes zero, the "
        "corrected p-value is below 0.05, and the search of the row that is behind is conclusive: its best rate has "
        "neighbours on both sides, which lie below it by no more than the difference.",
    ]
    if len(design.seeds) == 1:
        lines.append(
            "One training seed: the intervals hold the noise of problems only, and speak of these runs, not of the "
            "methods. Add seeds before choosing by them."
        )
    if design.margin:
        lines.append(
            "Within the equivalence margin means that the whole interval lies in it, whatever the direction; equivalent, that "
            "no direction is significant besides."
        )
    return lines


def optim_words(configs: Sequence[RunConfig]) -> str:
    """Which optimizer rows were trained with, and whether it was one for all."""
    words = {"paged_adamw_8bit": "AdamW with moments in 8 bits (bitsandbytes, paged)"}
    found = [words.get(name, "AdamW with fp32 moments") for name in sorted({config.optim for config in configs})]
    found = list(dict.fromkeys(found))
    return f"{found[0]} in all rows" if len(found) == 1 else f"Rows differ in their optimizer: {' or '.join(found)}"


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
    own = sum(run.outcome["seconds"].get("train", 0.0) for run in runs)
    doubts = [f"{label}: {said}" for label in study.rows if (said := study.search_doubt(label))]
    warning = f" Inconclusive for {'; '.join(doubts)}." if doubts else ""
    n = study.design.search_seeds
    seeds = f"{n} seeds" if n > 1 else "one seed, so that the luck of the choice is not known,"
    return (
        "Every row had the same learning-rate search on one lattice, 10^(n/4): half decades around its own rate, half the "
        f"steps each; then the best of them and its neighbours, all steps, {seeds} of the search's own, and one rate more "
        "as long as the best lay at the edge; scored on the validation split. That took "
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

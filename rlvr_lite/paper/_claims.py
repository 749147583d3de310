"""The claims of "Evaluating Parameter Efficient Methods for RLVR" (arXiv 2512.23165), run and judged.

``claims(scale="tiny")`` trains 326 runs, at most 310 whole ones' worth. Planned, from CPU seconds measured on runs of each
kind (18 a whole run of LoRA, 30 with dropout, 23 on a bf16 base, 43 with both): 7,000 of training and scoring and 2,400 for
a fresh process a run, 78 minutes on two idle cores. Measured: 149 minutes of runs, so 75 on two cores. It goes on where it was
stopped. The larger scales are the same declarations on other bases; what they would find is not known here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rlvr_lite.errors import UserError, as_html, unknown_name
from rlvr_lite.paper._experiments import EXPERIMENTS, Setting, cause_settings, setting
from rlvr_lite.paper._measure import DECODINGS, decoded, ratios, shares, wrong_base
from rlvr_lite.paper._rules import Evidence, Finding
from rlvr_lite.paper._statements import DECODED, Claim, declared, misplaced
from rlvr_lite.records import make_folder, write_json, write_text
from rlvr_lite.runs import writer
from rlvr_lite.study import EngineName, Row, Study, compare
from rlvr_lite.table import Table

__all__ = ["Claim", "Claims", "Finding", "claims", "declared"]

T = TypeVar("T")


@dataclass(frozen=True)
class Claims:
    """The verdicts.

    Attributes:
        directory: of the studies behind them.
        at: the scale.
        claims: that were judged.
        findings: one a claim, in the same order.
    """

    directory: Path
    at: Setting
    claims: tuple[Claim, ...]
    findings: tuple[Finding, ...]
    _index: Mapping[str, Finding] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {claim.id: finding for claim, finding in zip(self.claims, self.findings, strict=True)}
        object.__setattr__(self, "_index", found)

    def __getitem__(self, id: str) -> Finding:
        if id not in self._index:
            raise unknown_name("claim", id, self._index)
        return self._index[id]

    @property
    def table(self) -> Table:
        """A row a claim."""
        rows = [
            {
                "claim": claim.id,
                "verdict": found.verdict,
                "effect": None if found.effect is None else f"{found.effect:+.3f}",
                "95 %": None if found.low is None else f"[{found.low:+.3f}, {found.high:+.3f}]",
                "the paper says": claim.statement,
            }
            for claim, found in zip(self.claims, self.findings, strict=True)
        ]
        return Table.of(rows, title=f"Claims of arXiv 2512.23165 at scale {self.at.scale}", note=self._note)

    @property
    def _note(self) -> str:
        at = self.at
        return (
            f"base {at.config.base}, task {at.config.task}, {at.seeds} seeds ({at.ablation_seeds} in ablations, "
            f"{at.cause_seeds} in settings that may break a method), {at.config.eval_problems} problems x "
            f"{at.config.eval_k} answers; effects in accuracy, paired by seed and problem (ratios for spectra and shares); equivalent within {at.zone:g}."
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        rows = [
            {
                "id": claim.id,
                "statement": claim.statement,
                "rows": list(claim.rows),
                "controls": claim.controls,
                "criterion": claim.criterion,
                "verdict": found.verdict,
                "effect": found.effect,
                "low": found.low,
                "high": found.high,
                "sentence": found.sentence,
            }
            for claim, found in zip(self.claims, self.findings, strict=True)
        ]
        return {"scale": self.at.scale, "note": self._note, "claims": rows}

    def to_markdown(self) -> str:
        """The table, and what was found for each claim."""
        parts = [f"# {self.table.title}", self.table.to_markdown(), self._note]
        for claim, found in zip(self.claims, self.findings, strict=True):
            lines = [f"## {claim.id}: {found.verdict}", f"Claim: {claim.statement}.", f"Rule: {claim.criterion}."]
            lines += [f"Controls: {claim.controls}."] if claim.controls else []
            parts.append("\n\n".join([*lines, f"Found: {found.sentence}."]))
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        told = [f"{claim.id}: {f.sentence}" for claim, f in zip(self.claims, self.findings, strict=True)]
        return "\n".join([str(self.table), "", *told])

    def _repr_html_(self) -> str:
        told = [as_html(f"{claim.id}: {f.sentence}") for claim, f in zip(self.claims, self.findings, strict=True)]
        return self.table._repr_html_() + "<ul>" + "".join(f"<li>{line}</li>" for line in told) + "</ul>"


def claims(
    scale: str = "tiny",
    *,
    out: str | Path | None = None,
    only: Sequence[str] | None = None,
    engine: EngineName = "process",
    workers: int | None = None,
    at: Setting | None = None,
    progress: bool = True,
) -> Claims:
    """Run the experiments behind the claims, and say of each: supported, not supported or undecided.

    Calling it again with the same directory goes on where it was stopped; several processes may work on one directory.
    The verdicts stand in ``claims.json`` and ``claims.md`` there, the studies and their reports beside them.

    Args:
        scale: ``tiny``, ``small`` (SmolLM2-135M) or ``paper`` (the recipe paper-1.5b).
        out: directory; by default ``runs/claims-SCALE``.
        only: ids of claims; by default all.
        engine: ``local``, ``process`` or ``ray``.
        workers: runs at once of the latter two; of ``process`` by default one a GPU, or two without.
        at: another size of the study than the scale's.
        progress: show a progress bar a study.

    Raises:
        UserError: there is no such claim or scale, or the directory holds another study.
    """
    at = at or setting(scale)
    known = {claim.id: claim for claim in declared(at)}
    for id in only or ():
        if id not in known:
            raise unknown_name("claim", id, known)
    chosen = tuple(claim for claim in known.values() if not only or claim.id in only)
    root = Path(out) if out is not None else Path("runs") / f"claims-{scale}"
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: choose another --out")
    studies, missing = _studies(chosen, at, root, engine, workers or _workers(engine), progress)
    make_folder(root)
    with writer(root / ".lock", "claims", wait=True):  # one process at a time draws the answers that no study draws
        evidence = _evidence(chosen, at, root, studies, missing)
        result = Claims(root, at, chosen, tuple(claim.judge(evidence) for claim in chosen))
        write_json(root / "claims.json", result.to_dict())
        write_text(root / "claims.md", result.to_markdown())
    return result


def _workers(engine: EngineName) -> int | None:
    """Two runs at once where they share nothing but the processor; the engine knows better where there are GPUs."""
    import torch

    return min(2, os.cpu_count() or 1) if engine == "process" and not torch.cuda.is_available() else None


def _studies(
    chosen: Sequence[Claim], at: Setting, root: Path, engine: EngineName, workers: int | None, progress: bool
) -> tuple[dict[str, Study], dict[str, str]]:
    """The studies with the rows that the claims need and those whose tuned rates these need; why rows could not be run."""
    wanted = {row for claim in chosen for row in claim.rows}
    wanted |= {row for experiment in EXPERIMENTS if wanted & set(experiment.labels(at)) for row in experiment.after}
    studies: dict[str, Study] = {}
    missing: dict[str, str] = {}
    rates: dict[str, float] = {}
    for experiment in EXPERIMENTS:
        if not wanted & set(experiment.labels(at)):
            continue
        lost = [method for method in experiment.after if method not in rates]
        if lost:
            missing |= dict.fromkeys(experiment.labels(at), f"not run, for {lost[0]} has no learning rate that works")
            continue
        rows = experiment.rows(at, rates.__getitem__)
        entries = {label: fields for label, fields in rows.items() if label in wanted or label == next(iter(rows))}
        studies[experiment.name] = compare(
            entries,
            at.config.base,
            at.config.task,
            seeds=getattr(at, experiment.seeds),
            tune="lr" if experiment.tuned else "none",
            budget=at.rollouts if experiment.equal_rollouts else None,
            reference=next(iter(rows)),
            zone=at.zone,
            engine=engine,
            workers=workers,
            out=root / experiment.name,
            config=at.config,
            progress=progress,
        )
        if experiment.tuned:
            found = {label: row.learning_rate for label, row in studies[experiment.name].rows.items()}
            rates = {label: rate for label, rate in found.items() if rate is not None}
    return studies, missing


def _evidence(
    chosen: Sequence[Claim], at: Setting, root: Path, studies: Mapping[str, Study], missing: dict[str, str]
) -> Evidence:
    """What the rules look at, from finished studies; what is measured besides is kept in the directory."""
    rows = {label: row for study in studies.values() for label, row in study.rows.items()}
    scores = {label: row.scores for label, row in rows.items() if row.scores is not None}
    missing |= {label: row.problem for label, row in rows.items() if row.scores is None}
    for method in ("pissa", "milora"):
        _alias(method, at, rows, scores)

    def measured(what: str, label: str, job: Callable[[Row], T]) -> Iterator[T]:
        """The outcome; none where the row has no result or the measure breaks off, which is told where it is missed."""
        try:
            if label in scores:
                yield job(rows[label])
        except UserError as error:
            missing[what] = str(error)

    energy: dict[str, Sequence[float]] = {}
    for label in dict.fromkeys(label for claim in chosen for label in claim.spectra):
        for found in measured(label, label, partial(ratios, cache=root / "spectra")):
            energy |= found
    again: list[tuple[str, str, Callable[[Row], Any]]] = []
    for label in dict.fromkeys(label for claim in chosen for label in claim.rescored):
        target = root / "wrong-base" / label.replace(" ", "-")
        again.append((misplaced(label), label, partial(wrong_base, out=target)))
    for (temperature, top_p), what in zip(DECODINGS, DECODED, strict=True):
        target = root / "decoding" / f"t{temperature:g}-p{top_p:g}"
        if any(claim.decoded for claim in chosen):
            again.append((what, "lora", partial(decoded, temperature=temperature, top_p=top_p, out=target)))
    for what, label, job in again:
        for answered in measured(what, label, job):
            scores[what] = answered
    base = studies["methods"].base if "methods" in studies else None
    return Evidence(
        scores, base, energy, shares([name for claim in chosen for name in claim.counted]), at.zone, missing
    )


def _alias(method: str, at: Setting, rows: Mapping[str, Any], scores: dict[str, Any]) -> None:
    """Settings at LoRA's rate are those at the method's own where the search gave both the same."""
    if method not in rows or "lora" not in rows or rows[method].learning_rate != rows["lora"].learning_rate:
        return
    trials = cause_settings(method, at)
    for (*levels, which), label in trials.items():
        same = trials[*levels, "own"]
        if which != "own" and same in scores:
            scores[label] = scores[same]

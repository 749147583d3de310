"""The claims of "Evaluating Parameter Efficient Methods for RLVR" (arXiv 2512.23165), run and judged.

:func:`estimate` says what a scale takes before it starts. It goes on where it was stopped. The larger scales are the same
declarations on other bases; what they would find is not known here.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rlvr_lite.errors import UserError, as_html, unknown_name
from rlvr_lite.paper._evidence import Evidence, Finding
from rlvr_lite.paper._experiments import EXPERIMENTS, Experiment, Rate, Setting, cause_settings, setting
from rlvr_lite.paper._measure import DECODINGS, decoded, ratios, shares, wrong_base
from rlvr_lite.paper._statements import DECODED, Claim, declared, misplaced
from rlvr_lite.planning import Cost
from rlvr_lite.records import is_file, make_folder, write_json, write_text
from rlvr_lite.runs import STUDY, writer
from rlvr_lite.study import EngineName, Estimate, Row, Study, check_workers, compare
from rlvr_lite.study import estimate as estimate_study
from rlvr_lite.table import Table
from rlvr_lite.typed import checked

__all__ = ["Claim", "Claims", "claims", "declared", "estimate"]

T = TypeVar("T")


@dataclass(frozen=True)
class Claims:
    """The verdicts.

    Attributes:
        directory: of the studies behind them.
        at: the scale.
        claims: that were judged.
        findings: one a claim, in the same order.
        margin: equivalence margin in accuracy, the scale's share of what LoRA gains over the untrained base.
    """

    directory: Path
    at: Setting
    claims: tuple[Claim, ...]
    findings: tuple[Finding, ...]
    margin: float = 0.0
    _index: Mapping[str, Finding] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {claim.id: finding for claim, finding in zip(self.claims, self.findings, strict=True)}
        object.__setattr__(self, "_index", found)

    def __getitem__(self, id: str) -> Finding:
        if id not in self._index:
            raise unknown_name("claim", id, self._index)
        return self._index[id]

    def said(self, id: str) -> str:
        """A claim's verdict with the scale that it was seen at; what is only counted has none.

        Args:
            id: of the claim.
        """
        verdict = self[id].verdict
        claim = next(claim for claim in self.claims if claim.id == id)
        words = {"supported": "seen", "not supported": "not seen"}
        return f"{words.get(verdict, verdict)} at {self.at.size}" if claim.rows else verdict

    @property
    def table(self) -> Table:
        """A row a claim."""
        rows = [
            {
                "claim": claim.id,
                "verdict": self.said(claim.id),
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
            f"{at.config.eval_k} answers; effects in accuracy, paired by seed and problem (ratios for spectra and shares); equivalence margin "
            f"{self.margin:.3g}, {at.margin:g} of what LoRA gains over the untrained base. Seen and not seen are said of this base."
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
                "verdict": self.said(claim.id),
                "rule": found.verdict,
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
            lines = [f"## {claim.id}: {self.said(claim.id)}", f"Claim: {claim.statement}.", f"Rule: {claim.criterion}."]
            lines += [f"Controls: {claim.controls}."] if claim.controls else []
            parts.append("\n\n".join([*lines, f"Found: {found.sentence}."]))
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        told = [f"{claim.id}: {f.sentence}" for claim, f in zip(self.claims, self.findings, strict=True)]
        return "\n".join([str(self.table), "", *told])

    def __repr__(self) -> str:
        count = Counter(map(self.said, self._index))
        return (
            f"Claims({str(self.directory)!r}, {', '.join(f'{number} {verdict}' for verdict, number in count.items())})"
        )

    def _repr_html_(self) -> str:
        told = [as_html(f"{claim.id}: {f.sentence}") for claim, f in zip(self.claims, self.findings, strict=True)]
        return self.table._repr_html_() + "<ul>" + "".join(f"<li>{line}</li>" for line in told) + "</ul>"


@checked
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
    """Run the experiments behind the claims, and say of each: seen, not seen or undecided at this scale.

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
    check_workers(engine, workers)
    at = at or setting(scale)
    chosen = _chosen(at, only)
    root = Path(out) if out is not None else Path("runs") / f"claims-{scale}"
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: choose another --out")
    studies, missing = _studies(chosen, at, root, engine, workers or _workers(engine), progress)
    make_folder(root)
    with writer(root / ".lock", "claims", wait=True):  # one process at a time draws the answers that no study draws
        evidence = _evidence(chosen, at, root, studies, missing)
        result = Claims(root, at, chosen, tuple(claim.judge(evidence) for claim in chosen), evidence.margin)
        write_json(root / "claims.json", result.to_dict())
        write_text(root / "claims.md", result.to_markdown())
    return result


def _chosen(at: Setting, only: Sequence[str] | None) -> tuple[Claim, ...]:
    known = {claim.id: claim for claim in declared(at)}
    for id in only or ():
        if id not in known:
            raise unknown_name("claim", id, known)
    return tuple(claim for claim in known.values() if not only or claim.id in only)


def estimate(
    scale: str = "tiny",
    *,
    out: str | Path | None = None,
    only: Sequence[str] | None = None,
    gpu: str | None = None,
    at: Setting | None = None,
) -> Estimate:
    """What a call of :func:`claims` would take, without what its directory has: runs, generated tokens, hours and disk.

    As long as rates are not known, settings at LoRA's are counted as if that were never the method's own. Spectra and the scoring of policies once more
    are not counted.

    Args:
        scale: see :func:`claims`.
        out: see :func:`claims`.
        only: see :func:`claims`.
        gpu: a card that hours are given for; ``None`` takes this machine's device.
        at: see :func:`claims`.

    Raises:
        UserError: there is no such claim, scale or card, or the directory holds another study.
    """
    at = at or setting(scale)
    root = Path(out) if out is not None else Path("runs") / f"claims-{scale}"
    parts: dict[str, Cost] = {}
    rates = defaultdict(lambda: 2e-3, lora=1e-3)
    done = 0
    for experiment, entries in _experiments(_chosen(at, only), at):
        rows = entries(rates.__getitem__)
        folder = root / experiment.name
        options = _options(experiment, at)
        left = estimate_study(rows, at.config.base, at.config.task, out=folder, config=at.config, gpu=gpu, **options)
        if experiment.tuned and is_file(folder / STUDY):  # rows at these rates may have been run already
            rates |= _rates(Study.load(folder))
        parts |= {f"{experiment.name}: {name}": cost for name, cost in left.parts.items()}
        done += left.done
    return Estimate(parts, done)


def _experiments(chosen: Sequence[Claim], at: Setting) -> Iterator[tuple[Experiment, Callable[[Rate], dict[str, Any]]]]:
    """The experiments that claims need, and those whose tuned rates these need, each with its rows as far as they are wanted."""
    wanted = {row for claim in chosen for row in claim.rows}
    wanted |= {row for experiment in EXPERIMENTS if wanted & set(experiment.labels(at)) for row in experiment.after}
    for experiment in EXPERIMENTS:
        if wanted & set(experiment.labels(at)):

            def entries(rate: Rate, experiment: Experiment = experiment) -> dict[str, Any]:
                rows = experiment.rows(at, rate)
                return {label: v for label, v in rows.items() if label in wanted or label == next(iter(rows))}

            yield experiment, entries


def _options(experiment: Experiment, at: Setting) -> dict[str, Any]:
    return {
        "seeds": getattr(at, experiment.seeds),
        "tune": "lr" if experiment.tuned else "none",
        "budget": at.rollouts if experiment.equal_rollouts else None,
        "margin": at.margin,
        "search_seeds": at.search_seeds,
    }


def _workers(engine: EngineName) -> int | None:
    """Two runs at once where they share nothing but the processor; the engine knows better where there are GPUs."""
    import torch

    return min(2, os.cpu_count() or 1) if engine == "process" and not torch.cuda.is_available() else None


def _studies(
    chosen: Sequence[Claim], at: Setting, root: Path, engine: EngineName, workers: int | None, progress: bool
) -> tuple[dict[str, Study], dict[str, str]]:
    """The studies with the rows that the claims need and those whose tuned rates these need; why rows could not be run."""
    studies: dict[str, Study] = {}
    missing: dict[str, str] = {}
    rates: dict[str, float] = {}
    for experiment, wanted in _experiments(chosen, at):
        lost = [method for method in experiment.after if method not in rates]
        if lost:
            missing |= dict.fromkeys(experiment.labels(at), f"not run, for {lost[0]} has no learning rate that works")
            continue
        entries = wanted(rates.__getitem__)
        studies[experiment.name] = compare(
            entries,
            at.config.base,
            at.config.task,
            reference=next(iter(entries)),
            engine=engine,
            workers=workers,
            out=root / experiment.name,
            config=at.config,
            progress=progress,
            **_options(experiment, at),
        )
        if experiment.tuned:
            rates |= _rates(studies[experiment.name])
    return studies, missing


def _rates(study: Study) -> dict[str, float]:
    """The rates that a study's search has found so far."""
    return {label: row.learning_rate for label, row in study.rows.items() if row.learning_rate is not None}


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
    tuned = {e.name: studies[e.name] for e in EXPERIMENTS if e.tuned and e.name in studies}
    base, own = next((study.base for study in tuned.values()), None), scores.get("lora")
    gain = 0.0 if base is None or own is None else float(own.mean() - base.mean())
    counted = shares([name for claim in chosen for name in claim.counted])
    evidence = Evidence(scores, base, energy, counted, at.margin * max(0.0, gain), missing)
    of = {label: study for study in tuned.values() for label in study.rows}
    chance = {label: row.optimum.variance for label in of if (row := rows[label]).optimum is not None}
    rates = {label: rate for label in of if (rate := rows[label].learning_rate) is not None}
    return replace(
        evidence, of_choice=chance, rates=rates, doubt=lambda label, effect: of[label].search_doubt(label, effect)
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

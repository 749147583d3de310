"""A study on disk: one directory a trial, one manifest of what is compared, and who works on what."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_lite.config import Optim, RunConfig, from_json, to_json
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.evaluation import Score
from rlvr_lite.records import is_file, make_folder, read_json, write_json
from rlvr_lite.resolve import BOOKKEEPING
from rlvr_lite.runs import STUDY, sweep, writer
from rlvr_lite.study._design import Design, Trial, Variant
from rlvr_lite.study._lattice import rate_at
from rlvr_lite.training import Run

__all__ = ["Store", "read_design"]

_FORMAT = 2
_FAILURE = "failure.json"
#: What may grow when a study is called again; all else must be as it was.
_GROWING = ("variants", "seeds", "sources")


@dataclass(frozen=True)
class Store:
    """The files of a study.

    Attributes:
        root: its directory.
    """

    root: Path

    def path(self, trial: Trial) -> Path:
        """The directory of a trial."""
        row, _, name = trial.key.rpartition("/")
        return self.root / (f"runs/{_slug(row)}/{name}" if row else name)

    def lease(self, trial: Trial) -> Path:
        """The file by which a process says that it works on a trial."""
        return make_folder(self.root / "leases") / f"{_slug(trial.key)}.lock"

    # ---- the manifest -----------------------------------------------------------------------------------------

    def open(self, design: Design) -> Design:
        """Begin the study, or go on with it: what this call adds is kept, what it leaves out stays.

        Returns:
            The design with every row and seed that the study has had so far.

        Raises:
            UserError: the directory holds something else, or a study that differs in more than rows and seeds.
        """
        manifest = self.root / STUDY
        try:
            strange = self.root.exists() and (
                not self.root.is_dir() or any(not path.name.startswith(".") for path in self.root.iterdir())
            )
            if strange and not manifest.exists():
                raise UserError(f"{self.root} holds other files: choose an empty or new --out")
        except OSError as error:
            raise UserError(f"cannot use {self.root}: {error.strerror}; choose another --out") from error
        make_folder(self.root)
        with writer(self.root / ".lock", "opening the study", wait=True):  # or one loses the other's rows
            sweep(self.root, names=(STUDY,))
            if manifest.exists():
                design = self.joined(design)
            write_json(manifest, {"study": _FORMAT, **_describe(design)})
        return design

    def joined(self, design: Design) -> Design:
        """The design with the rows and seeds that the study here has already; as it is where there is none.

        Raises:
            UserError: it differs from the study in more than rows and seeds.
        """
        if not is_file(self.root / STUDY):
            return design
        old = read_design(self.root)
        _same_lattice(self.root, design)
        return _merged(old, design, self.root)

    def optim(self) -> Optim | None:
        """The optimizer of the study here, so that rows which are added later have no other; ``None`` where there is none."""
        return read_design(self.root).shared.optim if is_file(self.root / STUDY) else None

    # ---- outcomes ---------------------------------------------------------------------------------------------

    def score(self, trial: Trial) -> Score | None:
        """Who solved what, once a trial is done."""
        when = "before" if trial.stage == "base" else "after"
        path = self.run(trial).files.evaluations / f"{when}.jsonl"
        return Score.read(path, "study") if self.state(trial) == "done" and path.is_file() else None

    def run(self, trial: Trial) -> Run:
        """The run of a trial that trains."""
        return Run(self.path(trial))

    def state(self, trial: Trial) -> str:
        """``done``, ``failed`` or ``open``."""
        run = self.run(trial)
        if is_file(run.directory / _FAILURE):
            return "failed"
        if not run.settled:
            return "open"
        return "failed" if run.damage() else run.status

    def reason(self, trial: Trial) -> str:
        """Why a trial failed."""
        run = self.run(trial)
        if is_file(run.directory / _FAILURE):
            with suppress(UserError, LookupError, TypeError):
                if isinstance(said := read_json(run.directory / _FAILURE)["error"], str):
                    return said
            return f"{run.directory / _FAILURE} is damaged: repeat the call"
        broken = run.damage()
        return f"{run.directory} is damaged ({broken}): delete it and repeat the call" if broken else run.reason

    def fail(self, trial: Trial, error: BaseException | str) -> None:
        """Note that a trial cannot be done, with the reason."""
        folder = make_folder(self.path(trial))
        said = error if isinstance(error, str) else " ".join(f"{type(error).__name__}: {error}".split())
        said = str(error) if isinstance(error, UserError) else said
        trace = "" if isinstance(error, str) else "".join(traceback.format_exception(error))
        write_json(folder / _FAILURE, {"error": said, "traceback": trace})

    def retry_failed(self, trials: Iterable[Trial]) -> None:
        """Let what broke off with an error be tried again, as after freeing memory; failed proofs stay."""
        for trial in trials:
            (self.path(trial) / _FAILURE).unlink(missing_ok=True)

    def accuracies(self, design: Design, before: Mapping[str, float | None] | None = None) -> dict[str, float | None]:
        """Mean avg@k of every finished trial by its key, ``None`` where it failed; what a search is decided by.

        Args:
            design: of the study.
            before: what an earlier call found; what is finished stays as it is, and is not read again.
        """
        found = dict(before or {})
        while True:
            fresh = [c for c in design.known(found) if c.key not in found and self.state(c) != "open"]
            if not fresh:
                return found
            for trial in fresh:
                score = self.score(trial)
                found[trial.key] = None if score is None else score.metrics()[f"avg@{score.k}"].value


def read_design(root: Path) -> Design:
    """The design of the study in a directory.

    Raises:
        UserError: there is none.
    """
    if not is_file(root / STUDY):
        raise UserError(f"{root} is not a study: it has no {STUDY}")
    facts = read_json(root / STUDY)
    if not isinstance(facts, dict) or facts.get("study") != _FORMAT:
        raise UserError(f"{root / STUDY} is not a study of this version: begin a new one")
    facts.pop("study")
    with as_written(root / STUDY):
        variants = tuple(Variant(variant["label"], _tuples(variant["overrides"])) for variant in facts.pop("variants"))
        shared = from_json(RunConfig, json.dumps(facts.pop("shared")))
        design = Design(variants, shared, seeds=tuple(facts.pop("seeds")), **facts)
        design.known({})  # what its trials are called is asked of every field
        return design


def _describe(design: Design) -> dict[str, Any]:
    return {
        "variants": [
            {
                "label": variant.label,
                "overrides": dict(variant.overrides),
                "searched around": rate_at(design.centre(variant)) if design.tune == "lr" else None,
            }
            for variant in design.variants
        ],
        "shared": json.loads(to_json(design.shared)),
        "scale": design.scale,
        "seeds": list(design.seeds),
        "tune": design.tune,
        "budget": design.budget,
        "reference": design.reference,
        "margin": design.margin,
        "search_seeds": design.search_seeds,
        "sources": dict(design.sources),
    }


def _same_lattice(root: Path, design: Design) -> None:
    """Refuse to go on with a search that began elsewhere: rates around another centre are no part of it."""
    stored = {variant["label"]: variant.get("searched around") for variant in read_json(root / STUDY)["variants"]}
    for variant in design.variants if design.tune == "lr" else ():
        was, now = stored.get(variant.label), rate_at(design.centre(variant))
        if was is not None and was != now:
            raise UserError(
                f"{root} holds a study that searched {variant.label!r} around a learning rate of {was:g}, not {now:g}: "
                "choose another --out"
            )


def _merged(old: Design, new: Design, root: Path) -> Design:
    before, now = json.loads(json.dumps(_describe(old))), json.loads(json.dumps(_describe(new)))
    for name in before:
        if name in _GROWING or before[name] == now[name]:
            continue
        if name == "shared":
            differs = [n for n in before["shared"] if before["shared"][n] != now["shared"][n] and n not in BOOKKEEPING]
            if not differs:
                continue
            name = differs[0]
            was, wanted = before["shared"][name], now["shared"][name]
        else:
            was, wanted = before[name], now[name]
        raise UserError(f"{root} holds a study with {name} = {was!r}, not {wanted!r}: choose another --out")
    for variant in new.variants:
        same = next((a for a in old.variants if a.label == variant.label), variant)
        if json.dumps(dict(same.overrides), sort_keys=True) != json.dumps(dict(variant.overrides), sort_keys=True):
            raise UserError(f"{root} holds another row {variant.label!r}: give this one another name")
    for name, source in new.sources.items():
        if old.sources.get(name, source) != source:
            raise UserError(f"{root} holds a study whose {name} had another source: choose another --out, or rename it")
    variants = {variant.label: variant for variant in (*old.variants, *new.variants)}
    seeds = tuple(dict.fromkeys((*old.seeds, *new.seeds)))
    sources = {**old.sources, **new.sources}
    shared = dataclasses.replace(old.shared, **{name: getattr(new.shared, name) for name in BOOKKEEPING})
    return dataclasses.replace(old, variants=tuple(variants.values()), seeds=seeds, sources=sources, shared=shared)


def _tuples(overrides: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}


def _slug(text: str) -> str:
    """A file name that no two texts share, also where capitals are small letters, and that leads nowhere else."""
    plain = re.sub(r"[^a-z0-9._=+-]|^\.", "-", text.lower())[:80]
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
    return plain if plain == text else f"{plain}-{digest}"

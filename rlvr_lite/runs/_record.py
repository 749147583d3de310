"""A run on disk, described once: what export, evaluation, spectra, claims and reports read."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Self

from rlvr_lite.config import RunConfig, from_json
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.records import (
    MANIFEST,
    JsonLines,
    damage,
    hash_file,
    is_file,
    read_json,
    read_text,
    refuse_pickles,
    write_json,
    write_manifest,
)
from rlvr_lite.typed import as_path

__all__ = ["ADAPTER_FACTS", "STOPS", "STUDY", "RunDirectory", "RunRecord", "finish", "holds", "meant", "reopen"]

#: Signals that end a run between two steps, saved, by the reason that it then gives.
STOPS = {
    reason: number
    for reason, name in (
        ("interrupted", "SIGINT"),
        ("interrupted by SIGTERM", "SIGTERM"),
        ("interrupted by SIGHUP", "SIGHUP"),
    )
    if (number := getattr(signal, name, None)) is not None
}
_SETTLED = ("done", "failed", "damaged")
_SHOWN, _LOOKED_AT = 5, 2000  # runs that a message lists, and folders that are searched for them
#: The file by which a folder is a study.
STUDY = "study.json"
#: The file beside an adapter of this package that says what it is.
ADAPTER_FACTS = "rlvr_lite.json"


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run, by what they hold."""

    root: Path

    @property
    def config(self) -> Path:
        """The filled configuration."""
        return self.root / "config.json"

    @property
    def env(self) -> Path:
        """Versions, machine and the hash of the base."""
        return self.root / "env.json"

    @property
    def identity(self) -> Path:
        """The proof of what was trained."""
        return self.root / "identity.json"

    @property
    def summary(self) -> Path:
        """The outcome in one object."""
        return self.root / "summary.json"

    @property
    def metrics(self) -> JsonLines:
        """One line an optimizer step."""
        return JsonLines(self.root / "metrics.jsonl")

    @property
    def rollouts(self) -> JsonLines:
        """One line a sampled completion."""
        return JsonLines(self.root / "rollouts.jsonl")

    def steps(self) -> int:
        """Optimizer steps that are noted so far."""
        path = self.metrics.path
        if not path.exists():
            return 0
        with open(path, "rb") as file:
            return sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))

    @property
    def preflight(self) -> Path:
        """What a sample of rollouts looked like before the first step."""
        return self.root / "preflight.json"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.root / "adapter"

    @property
    def checkpoints(self) -> Path:
        """States to resume from."""
        return self.root / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """Scores before and after, a sample a line."""
        return self.root / "eval"

    @property
    def lock(self) -> Path:
        """Held by the process that trains here."""
        return self.root / ".lock"

    @property
    def manifest(self) -> Path:
        """Hashes of what the run claims, written last: a run with it is whole."""
        return self.root / MANIFEST

    def proof(self) -> Iterator[Path]:
        """The files that the manifest covers: all that says what was run, what came of it, and which adapter it is."""
        found = [p for p in self.root.iterdir() if p.suffix in (".json", ".jsonl") and not p.name.startswith(".")]
        for when in ("before", "after"):
            found += self.evaluations.glob(f"{when}.*")
        yield from sorted(
            path for path in (*found, self.adapter / MANIFEST) if path.is_file() and path != self.manifest
        )


@dataclass(frozen=True)
class RunRecord:
    """One training run on disk.

    Attributes:
        directory: holds ``config.json``, ``metrics.jsonl``, ``rollouts.jsonl``, ``identity.json``, ``adapter/``,
            ``checkpoints/``, ``eval/``, ``summary.json`` and, once it is finished, ``manifest.json``.
    """

    directory: Path

    @classmethod
    def open(cls, run: Any) -> Self:
        """The record of a ``Run`` or of the run in a directory.

        Raises:
            UserError: there is none.
        """
        path = as_path("run", getattr(run, "directory", run))
        if not is_file(path / "config.json"):
            what = (
                "is not a run: it has no config.json" if path.is_dir() else "does not exist: give the folder of a run"
            )
            raise UserError(meant(path) or f"{path} {what}")
        return cls(path)

    @staticmethod
    def is_run(path: Path) -> bool:
        """Whether a directory is that of a run, damaged or not, and not of a model, which has a ``config.json`` too."""
        if not is_file(path / "config.json"):
            return False
        if is_file(path / "metrics.jsonl"):
            return True
        stored = read_json(path / "config.json")
        return isinstance(stored, dict) and {"method", "base", "task"} <= set(stored)

    @property
    def files(self) -> RunDirectory:
        """Its files by what they hold."""
        return RunDirectory(self.directory)

    @property
    def config(self) -> RunConfig:
        """What was run, every field filled in.

        Raises:
            UserError: ``config.json`` is damaged.
        """
        path = self.files.config
        try:
            config = from_json(RunConfig, read_text(path))
        except (UserError, ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}): copy or train the run again") from error
        if config.steps is None or config.learning_rate is None:
            raise UserError(f"{path} is damaged (it does not say what was run): copy or train the run again")
        return config

    @property
    def env(self) -> dict[str, Any]:
        """Versions, machine, what was asked, and name, revision and hash of the base; empty if nothing was noted."""
        return _object(self.files.env) if is_file(self.files.env) else {}

    @property
    def summary(self) -> dict[str, Any]:
        """The outcome; empty while the run is under way."""
        return _object(self.files.summary, "status") if is_file(self.files.summary) else {}

    @property
    def outcome(self) -> dict[str, Any]:
        """The summary of a run that is known to have one.

        Raises:
            UserError: its folder is not there any more.
        """
        if found := self.summary:
            return found
        raise UserError(f"{self.directory} has no {self.files.summary.name} any more: load it from where it is now")

    @property
    def adapter(self) -> dict[str, Any]:
        """What was noted beside the adapter: method, base, fingerprint of the policy."""
        return _object(self.files.adapter / ADAPTER_FACTS, "base", "facts")

    @property
    def status(self) -> str:
        """``done``, ``failed``, ``stopped``, ``running``, or ``damaged`` if the outcome that the manifest lists is gone."""
        unknown = "damaged" if is_file(self.files.manifest) else "running"
        return str(self.summary.get("status", unknown))

    @property
    def reason(self) -> str:
        """Why it failed or was stopped, or what is to be known of it; empty if there is nothing to say."""
        summary = self.summary
        said = str(summary.get("reason") or "")
        return said or (str(summary.get("identity") or "") if summary.get("status") == "failed" else "")

    @property
    def settled(self) -> bool:
        """Whether it came to its end, so that the same call has nothing left to do."""
        return self.status in _SETTLED and is_file(self.files.manifest)

    @property
    def doubt(self) -> str:
        """Why its proof failed, or could not be had of a trial too short for one; empty for a proven run."""
        identity = str(self.summary.get("identity") or "")
        return self.reason if self.status == "failed" else identity if identity.startswith("not proven") else ""

    @property
    def adapter_hash(self) -> str:
        """Digest of the adapter's manifest, and so of every file of it."""
        return hash_file(self.files.adapter / MANIFEST)

    def metrics(self) -> list[dict[str, Any]]:
        """A row an optimizer step: reward, lengths, loss, gradient norm, times."""
        return self.files.metrics.rows()

    def rollouts(self, step: int | None = None) -> list[dict[str, Any]]:
        """Sampled completions with their rewards: of the optimizer step ``step``, or all."""
        rows = self.files.rollouts.rows()
        with as_written(self.files.rollouts.path):
            return rows if step is None else [row for row in rows if row["step"] == step]

    def damage(self) -> str | None:
        """Which file of a finished run is not what it was; ``None`` if all are, or the run is under way."""
        if self.status not in _SETTLED:
            return None
        files = self.files
        if not is_file(files.manifest):
            return f"it has no {MANIFEST}: repeat the call that began it"
        return _damage(self.directory, tuple(_state(path) for path in (files.manifest, *files.proof())))

    def gate(self, *, force: bool = False) -> Self:
        """The run itself, if its policy may be built upon: finished, proven and undamaged.

        Args:
            force: also let one pass whose proof failed; :attr:`doubt` says why.

        Raises:
            UserError: it may not.
        """
        path, status = self.directory, self.status
        if self.doubt and not force:
            said = f"failed its proof ({self.doubt})" if self.status == "failed" else f"is {self.doubt}"
            raise UserError(f"{path} {said}: train it again; export and chat take it with force")
        if status not in _SETTLED:
            raise UserError(f"{path} is not finished ({status}): repeat the call that began it")
        if not self.files.adapter.is_dir():
            raise UserError(f"{path} has no adapter: train it again")
        refuse_pickles(self.files.adapter)
        broken = damage(self.files.adapter) or self.damage()
        if broken:
            raise UserError(f"{path} is damaged ({broken}): copy or train it again")
        return self


def finish(files: RunDirectory, summary: Mapping[str, Any]) -> None:
    """Write the outcome of a run and, if it came to its end, the hashes of all that it claims.

    The manifest is the last file of a run: a run killed before it is not finished, and the same call goes on.

    Args:
        files: of the run.
        summary: its outcome; ``status`` is ``done``, ``failed`` or ``stopped``.
    """
    reopen(files)
    write_json(files.summary, dict(summary))
    if summary["status"] in _SETTLED:
        write_manifest(files.root, files.proof())


def reopen(files: RunDirectory) -> None:
    """Let a run that was finished or broken off go on: until it ends again nothing is claimed of it.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        files.manifest.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write in {files.root}: {error.strerror}; choose another --out") from error


def _state(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1024)  # a report asks often, and a file that has not been touched is hashed once
def _damage(root: Path, states: tuple[tuple[str, int, int], ...]) -> str | None:
    return damage(root)


def meant(path: Path) -> str:
    """What is wrong with a path that is not a run's, in a line that names the runs in it or beside it; empty where none is."""
    if path.is_file():
        return f"{path} is a file: give the folder of a run"
    if RunRecord.is_run(path.parent) and path.is_dir():
        return f"{path} is not a run but a part of one: give {path.parent}"
    what, where, depths = (
        ("is not a run", path, ("*", "*/*", "*/*/*", "*/*/*/*"))
        if path.is_dir()
        else ("does not exist", path.parent, ("*",))
    )
    found: set[str] = set()
    with suppress(OSError):
        below = islice((place for depth in depths for place in where.glob(depth)), _LOOKED_AT)
        found = {str(place.relative_to(where)) for place in below if RunRecord.is_run(place)}
    shown = ", ".join(sorted(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    return f"{path} {what}: the runs in {where} are {shown}" if found else ""


def holds(folder: Path) -> str:
    """What is in a folder that nothing else may be written to: a run, or a study of runs; empty where neither is."""
    return "a run" if RunRecord.is_run(folder) else "a study" if is_file(folder / STUDY) else ""


def _object(path: Path, *keys: str) -> dict[str, Any]:
    stored = read_json(path)
    if not isinstance(stored, dict) or not all(key in stored for key in keys):
        raise UserError(f"{path} is damaged: it is not what a run writes; copy or train the run again")
    return stored

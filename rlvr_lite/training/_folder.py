"""Which folder a run has, and whether what lies there is this very run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr_lite import methods
from rlvr_lite.config import RunConfig, to_json
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.records import write_json, write_text
from rlvr_lite.resolve import BOOKKEEPING
from rlvr_lite.runs import RunDirectory, RunRecord, reopen

__all__ = ["default_directory", "go_on", "is_done", "with_steps_of"]


def default_directory(config: RunConfig) -> Path:
    """``runs/TASK-BASE-METHOD-sSEED-HASH``: the same for what computes the same, another for any other."""
    usual: dict[str, Any] = {name: getattr(RunConfig(), name) for name in BOOKKEEPING}
    digest = hashlib.sha256(to_json(dataclasses.replace(config, **usual)).encode()).hexdigest()[:6]
    parts = (Path(config.task).stem, Path(config.base).name, config.method.replace(":", "-"), f"s{config.seed}", digest)
    return Path("runs") / "-".join(parts)


def is_done(directory: RunDirectory, asked: RunConfig, sources: Mapping[str, str]) -> bool:
    """Whether the directory holds this very run, finished.

    What changes nothing of what is computed may differ, and the steps may be more than they were: then there is
    something left to do.

    Args:
        directory: of the run.
        asked: what is to be run.
        sources: hashes of what of it is code, by name.

    Raises:
        UserError: it holds another run, or something else, or a finished run of which a file is not what it was.
    """
    try:
        return _holds(directory, asked, sources)
    except OSError as error:  # as in another user's folder
        raise UserError(f"cannot use {directory.root}: {error.strerror or error}; choose another --out") from error


def _holds(directory: RunDirectory, asked: RunConfig, sources: Mapping[str, str]) -> bool:
    root = directory.root
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: choose another --out")
    if not directory.config.exists():
        if root.is_dir() and not _begun(directory):
            raise UserError(f"{root} holds other files: choose an empty or new --out")
        return False
    record = RunRecord(root)
    if broken := record.settled and record.damage():
        raise UserError(f"{root} is damaged ({broken}): copy it again, or delete it and repeat the call")
    with as_written(directory.env):
        before, known = dict(record.env.get("asked", {})), dict(record.env.get("sources", {}))
    for name, value in json.loads(to_json(asked)).items():
        if name not in (*BOOKKEEPING, "steps") and before.get(name) != value:
            raise UserError(
                f"{root} holds a run with {name} = {before.get(name)!r}, not {value!r}: choose another --out"
            )
    for name, source in sources.items():
        if known.get(name, source) != source:
            raise UserError(
                f"{root} holds a run whose {name} had another source, or other values bound to it: choose another --out"
            )
    return not _more_steps(record, asked) and record.settled


def _begun(directory: RunDirectory) -> bool:
    """Whether a folder without a configuration is empty, or what a run killed at its very start leaves there."""
    names = {path.name for path in directory.root.iterdir() if not path.name.startswith(".")}
    return not names or (names <= {directory.env.name, "tasks"} and "asked" in RunRecord(directory.root).env)


def _more_steps(record: RunRecord, asked: RunConfig) -> bool:
    steps = record.config.steps or 0
    if asked.steps is None or asked.steps == steps:
        return False
    if asked.steps < steps:
        raise UserError(
            f"{record.directory} holds a run of {steps} steps, which can be more but not {asked.steps}: choose another --out"
        )
    if methods.get(asked.method).budget is not None:
        raise UserError(
            f"{record.directory} holds a run of {steps} steps, and the ranks of {asked.method} fall on a schedule over "
            "all of them: choose another --out"
        )
    return True


def with_steps_of(directory: RunDirectory, asked: RunConfig) -> RunConfig:
    """What is asked, with the steps that the run in the directory has where nobody names any."""
    if asked.steps is not None or not directory.config.exists():
        return asked
    return dataclasses.replace(asked, steps=RunRecord(directory.root).config.steps)


def go_on(files: RunDirectory, asked: RunConfig, config: RunConfig) -> None:
    """Note what is run from now on; with more steps than before, what stood at the end is made anew.

    Killed anywhere in here, the same call does it again: nothing is claimed of a run without its manifest.
    """
    record = RunRecord(files.root)
    reopen(files)
    if (config.steps or 0) > (record.config.steps or 0):
        shutil.rmtree(files.adapter, ignore_errors=True)
        for path in (files.summary, files.identity, *files.evaluations.glob("after.*")):
            path.unlink(missing_ok=True)
    if record.config != config:
        write_text(files.config, to_json(config))
        write_json(files.env, record.env | {"asked": json.loads(to_json(asked))})

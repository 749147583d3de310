"""Checkpoints: everything a run is, in one directory that appears whole or not at all.

A checkpoint holds the trained tensors, optimizer, scheduler, gradient scaler, all random generators, the rollouts of
an unfinished generation batch and the positions of the logs. Prompt order and sampling are functions of (seed, step)
and need no state.
"""

from __future__ import annotations

import logging
import pickle
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.trainer_callback import TrainerState

from rlvr_lite.errors import UserError, as_written, first_line, printable
from rlvr_lite.records import MANIFEST, atomic_directory, damage, is_file, read_json
from rlvr_lite.training._codec import read_state, write_state

__all__ = [
    "check",
    "generator_states",
    "newest_good",
    "optimizer_and_scheduler",
    "prune",
    "read",
    "restore_generators",
    "weights",
    "write",
]

logger = logging.getLogger(__name__)
_STATE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def newest_good(folder: Path, wanted: Callable[[Path], bool] = lambda path: True) -> Path | None:
    """The newest whole checkpoint under ``folder``; damaged ones are skipped and named in the log.

    Args:
        folder: that holds the checkpoints.
        wanted: which of them is better than a newer one.
    """
    whole = []
    for _, path in reversed(_numbered(folder)):
        problem = damage(path)
        if problem is None:
            if wanted(path):
                return path
            whole.append(path)
        else:
            logger.warning("skipping a damaged checkpoint: %s", printable(problem))
    return whole[0] if whole else None


def check(checkpoint: Path) -> None:
    """Refuse a checkpoint that somebody names and that is not what was written, of this trainer's or of TRL's.

    Raises:
        UserError: it is missing or damaged; says what of it.
    """
    if not is_file(checkpoint / _STATE):
        raise UserError(f"{checkpoint} is no checkpoint: it has no {_STATE}")
    ours = is_file(checkpoint / MANIFEST) or is_file(checkpoint / "logs.json")
    if ours and (broken := damage(checkpoint)):
        raise UserError(f"the checkpoint is damaged ({broken}): resume from another, or start anew")
    with as_written(checkpoint / _STATE, "resume from another checkpoint, or start anew"):
        state = read_json(checkpoint / _STATE)
        step = state["global_step"]
        TrainerState(**state)  # as transformers reads it
        if type(step) is not int or step < 0:
            raise ValueError(f"global_step is {step!r}")


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints."""
    for _, path in _numbered(folder)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def write(target: Path, state: dict[str, Any], trainer_state: str, *, policy: Callable[[Path], None]) -> None:
    """Write a checkpoint.

    Args:
        target: its directory, named ``checkpoint-STEP``.
        state: parts by name, each anything ``_codec.write_state`` takes.
        trainer_state: what transformers wants to find as ``trainer_state.json``.
        policy: writes what transformers or PEFT load: adapter or model, and the tokenizer.
    """
    with atomic_directory(target, parts=sorted(state)) as folder:
        for name, value in state.items():
            write_state(folder, name, value)
        (folder / _STATE).write_text(trainer_state, encoding="utf-8")
        policy(folder)


def read(checkpoint: Path, part: str) -> Any:
    """One part of a checkpoint, or ``None`` if it was written without."""
    return read_state(checkpoint, part) if (checkpoint / f"{part}.json").exists() else None


def optimizer_and_scheduler(checkpoint: Path) -> tuple[Any, Any]:
    """Their states, also from a checkpoint that TRL wrote.

    Raises:
        UserError: it was written without.
    """
    if (checkpoint / "optimizer.json").exists():
        return read(checkpoint, "optimizer"), read(checkpoint, "scheduler")
    files = checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"
    if not all(file.is_file() for file in files):
        raise UserError(f"{checkpoint} has no optimizer (save_only_model=True): start a new run from its weights")
    try:
        optimizer, scheduler = (torch.load(file, map_location="cpu", weights_only=True) for file in files)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:  # cut short, or not of tensors alone
        raise UserError(
            f"an optimizer.pt or scheduler.pt in {checkpoint} cannot be read: {first_line(error)}"
        ) from error
    return optimizer, scheduler


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The tensors that PEFT or transformers wrote there, by the names in their files.

    Raises:
        UserError: there are none, or they are damaged.
    """
    files = sorted([*checkpoint.glob("adapter_model.safetensors"), *checkpoint.glob("model*.safetensors")])
    if not files:
        raise UserError(
            f"{checkpoint} holds no weights in safetensors: choose a checkpoint folder of this trainer or TRL's"
        )
    try:
        found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    except SafetensorError as error:
        raise UserError(
            f"the weights in {checkpoint} are truncated or not safetensors ({error}): copy it again"
        ) from error
    if broken := sorted(name for name, tensor in found.items() if not tensor.isfinite().all()):
        raise UserError(f"the weights in {checkpoint} are not finite ({broken[0]}): resume from another checkpoint")
    return found


def generator_states() -> dict[str, Any]:
    """The state of every global random generator: Python's, NumPy's, PyTorch's on the CPU and on each GPU in use."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the global generator is what a data set may draw from
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_generators(states: dict[str, Any]) -> None:
    """The inverse of :func:`generator_states`, for the GPUs that are here: there may be more or fewer than there were.

    Args:
        states: what it returned.
    """
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_initialized():
        for card, state in enumerate(states.get("cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, card)

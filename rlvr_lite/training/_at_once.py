"""How many completions are sampled together, remembered in the run's folder once more of them did not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rlvr_lite import resolve, sampling
from rlvr_lite.analysis import memory
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.records import read_json, write_json

__all__ = ["CompletionsAtOnce", "own_sampler", "rollout_copy"]


class CompletionsAtOnce:
    """The most completions that are sampled together.

    Args:
        planned: what the memory plan says; ``None`` for all of a generation batch.
        path: a JSON file that keeps a smaller number, for a run that is resumed; ``None`` keeps it in memory.

    Attributes:
        rows: as it stands; ``None`` for all.
    """

    def __init__(self, planned: int | None, path: Path | None):
        self.rows, self._path = planned, path
        if path is not None and path.exists():
            kept = int(read_json(path)["completions_at_once"])
            self.rows = kept if planned is None else min(kept, planned)

    def lower(self, rows: int) -> None:
        """More than ``rows`` did not fit."""
        self.rows = rows
        if self._path is not None:
            write_json(self._path, {"completions_at_once": rows})


def rollout_copy(filled: RunConfig, facts: resolve.BaseFacts, backend: str) -> bool:
    """Whether rollouts are sampled from a copy of a 4-bit base: as asked, or where it takes no completion's place.

    Args:
        filled: every field filled in.
        facts: of the base.
        backend: who loaded it.
    """
    if backend == "unsloth":  # its kernels read the 4-bit weights
        return False
    if filled.precision != "nf4" or filled.rollout_copy != "auto" or facts.card is None:
        return filled.precision == "nf4" and bool(filled.rollout_copy)
    shape, adapter, step, room = resolve.planned_step(dataclasses.replace(filled, rollout_copy=False), facts)
    return memory.copy_fits(shape, adapter, step, room)


def own_sampler(trainer: Any, others: list[Any], copy: Literal["auto", True, False]) -> sampling.TransformersSampler:
    """The sampler of a trainer's own model.

    Args:
        trainer: a ``GRPOTrainer``.
        others: who samples in its place, each ``None`` or not.
        copy: its ``rollout_copy``.

    Raises:
        UserError: several would sample, or a copy that nobody would sample from.
    """
    given = [other for other in others if other is not None]
    if len(given) > 1:
        raise UserError("rollout_func and sampler would both sample: pass one of them")
    if given and copy is True:
        raise UserError(
            "rollout_copy=True is for sampling from the model itself: leave it out, or sampler and rollout_func"
        )
    return sampling.TransformersSampler(
        trainer.model,
        trainer._tokenizer,
        template=trainer.chat_template_kwargs,
        ends=sampling.eos_ids(trainer.model, trainer._tokenizer),
        autocast=trainer.accelerator.autocast,
        copy=copy,
    )

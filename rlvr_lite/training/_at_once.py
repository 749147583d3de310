"""How many completions are sampled together, remembered in the run's folder once more of them did not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from rlvr_lite import resolve, sampling
from rlvr_lite.analysis import memory
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.records import read_json, write_json
from rlvr_lite.training._engine import engine_options

__all__ = ["CompletionsAtOnce", "engine_share", "rollout_copy", "sampler_of"]


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
            with as_written(path, "delete it"):
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
    if backend == "unsloth" or filled.sampler == "vllm":  # its kernels read the 4-bit weights; an engine has its own
        return False
    if filled.precision != "nf4" or filled.rollout_copy != "auto" or facts.card is None:
        return filled.precision == "nf4" and bool(filled.rollout_copy)
    shape, adapter, step, room = resolve.planned_step(dataclasses.replace(filled, rollout_copy=False), facts)
    return memory.copy_fits(shape, adapter, step, room)


def engine_share(filled: RunConfig, facts: resolve.BaseFacts) -> float | None:
    """The share of the card that vLLM may fill while it samples: what base, adapter and moments leave of it.

    Args:
        filled: every field filled in.
        facts: of the base.

    Returns:
        The share; ``None`` without an engine, and on a CPU.

    Raises:
        UserError: vLLM is not there, or the card has no room for its weights and the completions of one prompt.
    """
    if filled.sampler != "vllm":
        return None
    sampling.vllm_library("leave the sampler out")
    if facts.card is None:
        return None
    shape, adapter, step, room = resolve.planned_step(filled, facts)
    bill = memory.phases(shape, filled.precision, adapter, dataclasses.replace(step, prompts=1))["rollout"]
    own = sum(bill[kind] for kind in ("engine", "KV cache", "head"))
    held = sum(bill.values()) - own
    if held + own > room:
        raise UserError(
            f"sampler='vllm' holds the weights once more: {(held + own) / memory.GIB:.1f} GiB with the model's, and "
            f"{room / memory.GIB:.1f} of this card can be filled; leave the sampler out, or take a smaller base"
        )
    return int(100 * (room - held) / facts.card) / 100


def sampler_of(
    trainer: Any,
    asked: sampling.Sampler | Literal["vllm"] | None,
    rollout: Any,
    copy: Literal["auto", True, False],
    rows: Any,
) -> sampling.Sampler:
    """Who samples for a trainer.

    Args:
        trainer: a ``GRPOTrainer``.
        asked: its ``sampler``; ``vllm`` for an engine beside its model.
        rollout: a user's own way, or ``None``.
        copy: its ``rollout_copy``.
        rows: its prompts.

    Raises:
        UserError: several would sample, a copy that nobody would sample from, or vLLM cannot be had or is there already.
    """
    given = [other for other in (asked, rollout) if other is not None]
    if len(given) > 1:
        raise UserError("rollout_func and sampler would both sample: pass one of them")
    if given and copy is True:
        raise UserError(
            "rollout_copy=True is for sampling from the model itself: leave it out, or sampler and rollout_func"
        )
    if isinstance(asked, str) and asked != "vllm":
        raise UserError(f"sampler must be 'vllm' or a Sampler, got {asked!r}")
    if asked is not None and asked != "vllm":
        return asked
    own = sampling.TransformersSampler(
        trainer.model,
        trainer._tokenizer,
        template=trainer.chat_template_kwargs,
        ends=sampling.eos_ids(trainer.model, trainer._tokenizer),
        autocast=trainer.accelerator.autocast,
        copy=copy,
    )
    if asked is None:
        return own
    if getattr(trainer.model, "vllm_engine", None) is not None:  # which shares its weights
        raise UserError(
            "this base came with an engine of Unsloth's own: load it with fast_inference=False, and sampler='vllm' starts one"
        )
    if trainer.processes.count > 1:
        raise UserError("sampler='vllm' samples for one process: start one, or leave it out")
    options = engine_options(trainer.args, rows, trainer._tokenizer, trainer.chat_template_kwargs)
    return sampling.ColocatedVLLM(trainer.model, own, trainer._tokenizer, **options)

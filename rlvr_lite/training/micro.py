"""How many completions a backward pass takes on this machine's card, and how many are sampled at once, by the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlvr_lite import methods
from rlvr_lite.analysis import memory
from rlvr_lite.config import RunConfig
from rlvr_lite.methods import footprint

if TYPE_CHECKING:
    from rlvr_lite.bases import Base

__all__ = ["planned_completions", "planned_micro_batch"]

_PROMPT = 512  # tokens of a long prompt; what is longer is caught by halving a pass that does not fit
_SHARE = 0.85  # of the card, so that context and fragmentation have room


def planned_micro_batch(config: RunConfig, base: Base, card: int | None = None) -> int | None:
    """The largest micro-batch whose forward and backward pass fit; on a CPU what the configuration says.

    It depends on the card's size alone, not on what is free, so that a resumed run takes the same.

    Args:
        config: filled.
        base: loaded.
        card: bytes of memory; by default those of the base's GPU.
    """
    if card is None and base.device.type != "cuda":
        return config.micro_batch
    shape, adapter, step, room = _step(config, base, card)
    return max(1, memory.micro_batch(shape, config.precision, adapter, step, room))


def planned_completions(config: RunConfig, base: Base, card: int | None = None) -> int | None:
    """The most completions that fit beside each other while they are sampled; ``None``, for all, on a CPU.

    Args:
        config: filled.
        base: loaded.
        card: bytes of memory; by default those of the base's GPU.
    """
    if card is None and base.device.type != "cuda":
        return None
    shape, adapter, step, room = _step(config, base, card)
    prompts = memory.prompts_at_once(shape, config.precision, adapter, step, room)
    return max(1, prompts) * config.group_size


def _step(config: RunConfig, base: Base, card: int | None) -> tuple[memory.Shape, memory.Adapter, memory.Step, int]:
    """What the memory plan reads, and the bytes that it may fill."""
    assert config.max_completion_length is not None
    total = torch.cuda.get_device_properties(base.device).total_memory if card is None else card
    layout = methods.Layout.of_model(base.model)
    adapter = footprint(config.method, layout, config.adapter, device="cuda", size=base.compute_dtype.itemsize)
    step = memory.Step(
        prompts=config.prompts_per_step or 1,
        group_size=config.group_size,
        prompt_length=_PROMPT,
        completion_length=config.max_completion_length,
        micro_batch=1,
        rows=(config.prompts_per_step or 1) * config.group_size,
        checkpointing=bool(config.gradient_checkpointing),
    )
    return memory.Shape.of_config(base.model.config.to_dict()), adapter, step, int(_SHARE * total)

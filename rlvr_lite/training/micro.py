"""How many completions a backward pass takes on this machine's card, by the memory plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlvr_lite import methods
from rlvr_lite.analysis import memory
from rlvr_lite.config import RunConfig
from rlvr_lite.methods import footprint

if TYPE_CHECKING:
    from rlvr_lite.bases import Base

__all__ = ["planned_micro_batch"]

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
    assert config.max_completion_length is not None
    total = torch.cuda.get_device_properties(base.device).total_memory if card is None else card
    layout = methods.Layout.of_model(base.model)
    adapter = footprint(config.method, layout, config.adapter, device="cuda", size=base.compute_dtype.itemsize)
    rows = (config.prompts_per_step or 1) * config.group_size
    step = memory.Step(
        prompts=config.prompts_per_step or 1,
        group_size=config.group_size,
        prompt_length=_PROMPT,
        completion_length=config.max_completion_length,
        micro_batch=1,
        rows=rows,
        checkpointing=bool(config.gradient_checkpointing),
    )
    shape = memory.Shape.of_config(base.model.config.to_dict())
    return max(1, memory.micro_batch(shape, config.precision, adapter, step, int(_SHARE * total)))

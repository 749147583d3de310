"""The rollouts between two generations, rows of a group adjacent, joined from rounds and cut into micro-steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlvr_lite.grpo import RolloutBatch, micro_batches, trim

__all__ = ["cut", "fields_of", "join", "micro_batches_of", "micro_steps", "on_device"]

_CPU_TOKENS = 8192  # tokens a pass on a CPU: more of them leave its caches and take a tenth longer


def fields_of(batch: RolloutBatch) -> dict[str, Any]:
    """The tensors of a batch by name, ``None`` where it has none; ``RolloutBatch(**fields_of(b))`` is ``b``."""
    return {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}


def on_device(batch: RolloutBatch, device: torch.device) -> RolloutBatch:
    """The same rows there."""
    fields: dict[str, Any] = {name: None if t is None else t.to(device) for name, t in fields_of(batch).items()}
    return RolloutBatch(**fields)


def join(parts: Sequence[RolloutBatch], pad_id: int) -> RolloutBatch:
    """Rows of several rounds as one batch, padded to the longest prompt and the longest completion."""
    width = max(part.prompt_ids.shape[1] for part in parts)
    length = max(part.completions.shape[1] for part in parts)

    def field(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        if values[0] is None:
            return None
        if name.startswith("prompt"):
            fill = pad_id if name == "prompt_ids" else 0
            values = [F.pad(v, (width - v.shape[1], 0), value=fill) for v in values]
        elif values[0].dim() == 2:
            fill = pad_id if name == "completions" else 0
            values = [F.pad(v, (0, length - v.shape[1]), value=fill) for v in values]
        return torch.cat(values)

    return RolloutBatch(**{name: field(name) for name in fields_of(parts[0])})  # type: ignore[arg-type]


def micro_steps(groups: int, group_size: int, steps: int) -> list[Tensor]:
    """Row numbers of each micro-step: whole groups, as evenly as they go.

    >>> [rows.tolist() for rows in micro_steps(groups=3, group_size=2, steps=2)]
    [[0, 1, 2, 3], [4, 5]]
    """
    rows = torch.arange(groups * group_size).view(groups, group_size)
    return [part.reshape(-1) for part in torch.tensor_split(rows, steps)]


def cut(batch: RolloutBatch, size: int) -> list[RolloutBatch]:
    """Runs of at most ``size`` rows, each trimmed; none of an empty batch."""
    if len(batch) <= size:
        return [batch] if len(batch) else []
    rows = torch.arange(len(batch), device=batch.mask.device)
    return [trim(batch.rows(part)) for part in rows.split(size)]


def micro_batches_of(batch: RolloutBatch, size: int | None) -> list[RolloutBatch]:
    """Micro-batches of about equal tokens, groups together where that fits.

    Args:
        batch: rows of a micro-step.
        size: at most so many rows a micro-batch; ``None`` leaves that open.
    """
    tokens = int(batch.prompt_mask.sum() + batch.mask.sum()) if batch.mask.device.type == "cpu" else 0
    parts = max(math.ceil(len(batch) / (size or max(len(batch), 1))), math.ceil(tokens / _CPU_TOKENS))
    if parts <= 1:
        return cut(trim(batch), len(batch))
    return [small for part in micro_batches(batch, parts) for small in cut(part, size or max(len(part), 1))]

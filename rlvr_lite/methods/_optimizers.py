"""Optimizers over the trainable tensors of an attached model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["adamw", "group"]


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW; weight decay acts on matrices, not on vectors such as magnitudes and norm weights."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        group("matrices", (p for p in trained if p.ndim > 1), learning_rate, weight_decay),
        group("vectors", (p for p in trained if p.ndim <= 1), learning_rate, 0.0),
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=learning_rate, weight_decay=weight_decay, fused=True
    )


def group(name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> dict[str, Any]:
    """A parameter group that says what it is."""
    return {"name": name, "params": list(parameters), "lr": learning_rate, "weight_decay": weight_decay}

"""Optimizers over the trainable tensors of an attached model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlvr_lite.methods._attachment import attachment
from rlvr_lite.methods._footprint import eight_bit
from rlvr_lite.methods._lora import ADAPTER, lora_layers

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoraFA", "adamw", "lora_plus"]


def _group(name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": list(parameters), "lr": learning_rate, "weight_decay": weight_decay}


def _adamw(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    groups = [g for g in groups if g["params"]]
    parameters = [p for g in groups for p in g["params"]]
    if eight_bit(parameters[0].device.type, sum(p.numel() for p in parameters)):
        import bitsandbytes

        return bitsandbytes.optim.PagedAdamW8bit(groups, lr=learning_rate)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW; weight decay acts on matrices, not on vectors such as magnitudes and norm weights."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        _group("matrices", (p for p in trained if p.ndim > 1), learning_rate, weight_decay),
        _group("vectors", (p for p in trained if p.ndim <= 1), learning_rate, 0.0),
    ]
    return _adamw(groups, learning_rate)


def lora_plus(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """LoRA+ (arXiv 2402.12354, §4): AdamW with ``ratio`` times the rate on every B; all else has the plain rate."""
    ratio = float(attachment(model).build.adapter.options["ratio"])
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    high = {n for n, p in trained.items() if ".lora_B." in n and p.ndim > 1}
    groups = [
        _group("A", (p for n, p in trained.items() if n not in high and p.ndim > 1), learning_rate, weight_decay),
        _group("B", (p for n, p in trained.items() if n in high), ratio * learning_rate, weight_decay),
        _group("vectors", (p for n, p in trained.items() if p.ndim <= 1), learning_rate, 0.0),
    ]
    return _adamw(groups, learning_rate)


class LoraFA(torch.optim.AdamW):
    """AdamW on B with the gradient ``(1/s^2) g_B (A A^T)^-1``, which follows the full weight's gradient best.

    ``min_g |s g A - G|_F`` over ``g``, with ``g_B = s G A^T`` (LoRA-FA, arXiv 2308.03303, and PEFT's ``LoraFAOptimizer``).
    A is frozen, so its inverse is kept until another A is loaded. Layers that got no gradient are left alone.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float):
        self._layers = {id(layer.lora_B[ADAPTER].weight): layer for _, layer in lora_layers(model)}
        self._inverses: dict[int, tuple[tuple[int, int], Tensor]] = {}
        matrices = [layer.lora_B[ADAPTER].weight for layer in self._layers.values()]
        super().__init__([_group("B", matrices, learning_rate, weight_decay)], lr=learning_rate, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Correct the gradients, then AdamW."""
        for group in self.param_groups:
            for b in group["params"]:
                if b.grad is not None:
                    b.grad = b.grad @ self._correction(id(b)).to(b.grad.dtype)
        return super().step(closure)

    def _correction(self, matrix: int) -> Tensor:
        """``(1/s^2) (A A^T)^-1 [r, r]`` of the layer that a B belongs to, taken in fp64."""
        layer = self._layers[matrix]
        a = layer.lora_A[ADAPTER].weight
        key = (a.data_ptr(), a._version)
        if matrix not in self._inverses or self._inverses[matrix][0] != key:
            a = a.double()
            damped = a @ a.T + 1e-8 * torch.eye(len(a), dtype=a.dtype, device=a.device)
            self._inverses[matrix] = key, torch.linalg.pinv(damped) / layer.scaling[ADAPTER] ** 2
        return self._inverses[matrix][1]

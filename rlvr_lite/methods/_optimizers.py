"""Optimizers over the trainable tensors of an attached model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlvr_lite.errors import UserError
from rlvr_lite.methods._attachment import attachment
from rlvr_lite.methods._lora import ADAPTER, lora_layers

if TYPE_CHECKING:
    from torch import nn

__all__ = ["adamw", "check_optim", "lora_fa", "lora_plus"]


def _group(name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> dict[str, Any]:
    return {"name": name, "params": list(parameters), "lr": learning_rate, "weight_decay": weight_decay}


def _adamw(groups: list[dict[str, Any]], learning_rate: float, eight_bit: bool) -> torch.optim.Optimizer:
    groups = [g for g in groups if g["params"]]
    if eight_bit:
        check_optim("paged_adamw_8bit")
        import bitsandbytes

        return bitsandbytes.optim.PagedAdamW8bit(groups, lr=learning_rate)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def check_optim(optim: str) -> None:
    """Refuse moments in 8 bits where training would be on a CPU, before anything is loaded.

    Raises:
        UserError: there is no CUDA GPU.
    """
    if optim == "paged_adamw_8bit" and not torch.cuda.is_available():
        raise UserError("optim paged_adamw_8bit needs a CUDA GPU: leave it out, or take adamw_torch_fused")


def adamw(
    model: nn.Module, learning_rate: float, weight_decay: float, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """AdamW; weight decay acts on matrices, not on vectors such as magnitudes and norm weights."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        _group("matrices", (p for p in trained if p.ndim > 1), learning_rate, weight_decay),
        _group("vectors", (p for p in trained if p.ndim <= 1), learning_rate, 0.0),
    ]
    return _adamw(groups, learning_rate, eight_bit)


def lora_plus(
    model: nn.Module, learning_rate: float, weight_decay: float, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """LoRA+ (arXiv 2402.12354, §4): AdamW with ``ratio`` times the rate on every B; all else has the plain rate."""
    ratio = float(attachment(model).build.adapter.options["ratio"])
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    high = {n for n, p in trained.items() if ".lora_B." in n and p.ndim > 1}
    groups = [
        _group("A", (p for n, p in trained.items() if n not in high and p.ndim > 1), learning_rate, weight_decay),
        _group("B", (p for n, p in trained.items() if n in high), ratio * learning_rate, weight_decay),
        _group("vectors", (p for n, p in trained.items() if p.ndim <= 1), learning_rate, 0.0),
    ]
    return _adamw(groups, learning_rate, eight_bit)


def lora_fa(
    model: nn.Module, learning_rate: float, weight_decay: float, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """AdamW on B with the gradient ``(1/s^2) g_B (A A^T)^-1``, which follows the full weight's gradient best.

    ``min_g |s g A - G|_F`` over ``g``, with ``g_B = s G A^T`` (LoRA-FA, arXiv 2308.03303, and PEFT's ``LoraFAOptimizer``).
    """
    correction = _Correction(model)
    made = _adamw([_group("B", correction.matrices, learning_rate, weight_decay)], learning_rate, eight_bit)
    made.register_step_pre_hook(correction)
    return made


class _Correction:
    """``g_B`` to ``(1/s^2) g_B (A A^T)^-1`` before a step; layers that got no gradient are left alone.

    A is frozen, so its inverse is kept until another A is loaded.
    """

    def __init__(self, model: nn.Module):
        self._layers = {id(layer.lora_B[ADAPTER].weight): layer for _, layer in lora_layers(model)}
        self._inverses: dict[int, tuple[tuple[int, int], Tensor]] = {}
        self.matrices = [layer.lora_B[ADAPTER].weight for layer in self._layers.values()]

    @torch.no_grad()
    def __call__(self, *_: Any) -> None:
        for b in self.matrices:
            if b.grad is not None:
                b.grad = b.grad @ self._inverse(id(b)).to(b.grad.dtype)

    def _inverse(self, matrix: int) -> Tensor:
        """``(1/s^2) (A A^T)^-1 [r, r]`` of the layer that a B belongs to, taken in fp64."""
        layer = self._layers[matrix]
        a = layer.lora_A[ADAPTER].weight
        key = (a.data_ptr(), a._version)
        if matrix not in self._inverses or self._inverses[matrix][0] != key:
            a = a.double()
            damped = a @ a.T + 1e-8 * torch.eye(len(a), dtype=a.dtype, device=a.device)
            self._inverses[matrix] = key, torch.linalg.pinv(damped) / layer.scaling[ADAPTER] ** 2
        return self._inverses[matrix][1]

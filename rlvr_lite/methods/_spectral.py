"""Methods that start from a decomposition of the base weight, without writing to the base.

``y = W x + s (B A - B0 A0) x``: the frozen start is subtracted, so step 0 is exactly the base and 4-bit bases work. Held as
one plain LoRA of rank 2r in delta form, ``[B - B0, B0] [A; A - A0]``, whose bf16 rounding stays relative to the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

from rlvr_lite.methods._computed import AnchoredIn, AnchoredOut
from rlvr_lite.methods._lora import ADAPTER, build_lora, lora_layers, lora_scale
from rlvr_lite.methods._spec import Build
from rlvr_lite.methods._starts import Start, weight_of

__all__ = [
    "ResidualLinear",
    "build_anchored",
    "build_residual",
    "build_started",
    "refresh_residual",
    "starts",
]

MakeStart = Callable[[Tensor, int, float], Start]


def starts(model: nn.Module, build: Build, start: MakeStart) -> Any:
    """Every LoRA layer with its ``(A0, B0)`` in fp32 on the layer's device; zeros if the build is blank."""
    r, scale = build.rank, lora_scale(build.alpha, build.rank)
    for _, layer in lora_layers(model):
        if build.blank:
            out, inp = layer.out_features, layer.in_features
            device = layer.get_base_layer().weight.device
            yield layer, (torch.zeros(r, inp, device=device), torch.zeros(out, r, device=device))
        else:
            yield layer, start(weight_of(layer.get_base_layer()), r, scale)


def build_started(model: nn.Module, build: Build, start: MakeStart) -> nn.Module:
    """A plain LoRA of rank r that starts from ``(A0, B0)`` with ``B0 A0 = 0``; nothing needs subtracting."""
    attached = build_lora(model, build)
    with torch.no_grad():
        for layer, (a, b) in starts(attached, build, start):
            layer.lora_A[ADAPTER].weight.copy_(a)
            layer.lora_B[ADAPTER].weight.copy_(b)
    return attached


def build_anchored(model: nn.Module, build: Build, start: MakeStart) -> nn.Module:
    """The delta form: a LoRA of rank 2r of which only A and B are trained."""
    attached = build_lora(model, build.with_size(2 * build.rank, 2 * build.alpha))
    for layer, (a, b) in starts(attached, build, start):
        layer.lora_A[ADAPTER], layer.lora_B[ADAPTER] = AnchoredIn(a), AnchoredOut(b)
    return attached


def build_residual(model: nn.Module, build: Build, start: MakeStart) -> nn.Module:
    """The published form: the base weight gives up ``s B0 A0``, and gets it back while the adapter is disabled."""
    attached = build_lora(model, build.with_size(2 * build.rank, 2 * build.alpha))
    scale = lora_scale(build.alpha, build.rank)
    for layer, (a, b) in starts(attached, build, start):
        layer.lora_A[ADAPTER], layer.lora_B[ADAPTER] = AnchoredIn(a, residual=True), AnchoredOut(b, residual=True)
        layer.__class__ = ResidualLinear
        layer.start_residual(scale)
    return attached


def refresh_residual(model: nn.Module) -> None:
    """Compute the residual weights anew from anchors that were loaded."""
    for _, layer in lora_layers(model):
        layer.start_residual(layer.scaling[ADAPTER], original=layer.original)


class ResidualLinear(lora.Linear):
    """A LoRA layer whose base weight is ``W - s B0 A0`` while the adapter is on and ``W`` while it is off."""

    original: Tensor
    residual: Tensor

    def start_residual(self, scale: float, original: Tensor | None = None) -> None:
        """Take ``s B0 A0`` out of the base weight, in fp32."""
        base = self.get_base_layer()
        self.original = base.weight.data if original is None else original
        a, b = self.lora_A[ADAPTER].anchor, self.lora_B[ADAPTER].anchor
        self.residual = (self.original.float() - scale * (b @ a)).to(self.original.dtype)
        base.weight.data = self.residual

    def enable_adapters(self, enabled: bool) -> None:
        """Switch the adapter, and the base weight with it."""
        super().enable_adapters(enabled)
        self.get_base_layer().weight.data = self.residual if enabled else self.original

    def get_delta_weight(self, adapter: str) -> Tensor:
        """``s B A``: what is added to the residual weight."""
        return self.scaling[adapter] * (self.lora_B[adapter].live @ self.lora_A[adapter].live)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ResidualLinear:
        super()._apply(fn, recurse)
        self.original, self.residual = fn(self.original), fn(self.residual)
        return self

"""LoRA-FA: A stays as drawn, only B is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, build_lora, lora_layers, lora_scale, per_target
from rlvr_lite.methods._memory import factor_bytes, inputs_bytes
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    import torch
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from rlvr_lite.methods._computed import FixedLinear

    attached = build_lora(model, build)
    for _, layer in lora_layers(attached):
        layer.lora_A[ADAPTER] = FixedLinear(layer.lora_A[ADAPTER].weight.detach())
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(layout, adapter, lambda out, inp: {f"lora_B.{ADAPTER}.weight": (out, r)})


def _optimizer(model: nn.Module, learning_rate: float, weight_decay: float, eight_bit: bool) -> torch.optim.Optimizer:
    from rlvr_lite.methods._optimizers import lora_fa

    return lora_fa(model, learning_rate, weight_decay, eight_bit)


register(
    Method(
        name="lora_fa",
        family="optimizer",
        summary="LoRA with A frozen as drawn; the gradient of B is corrected for the A it sees",
        paper="Zhang et al., LoRA-FA",
        arxiv="2308.03303",
        build=_build,
        expected=_expected,
        learning_rates=rates(3e-3, "measured with plain AdamW on B: avg@8 .59 at 3e-3", paper_source=PAPER),
        scale=lora_scale,
        scale_formula="alpha / r",
        layer="lora.Linear(FixedLinear, Linear)",
        optimizer=_optimizer,
        paper_row=5,
        cost=(0.99, 1.03),
        memory={
            "nf4": (29.08, 13.65, 0.0, 0.0, 9.7),
            "bf16": (29.08, 13.65, 0.0, 0.0, 9.7),
            "fp32": (27.04, 23.59, 0.0, 0.03, 18.1),
        },
        frozen=inputs_bytes,
        kept=factor_bytes,
    )
)

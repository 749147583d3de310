"""MiCA: LoRA with B frozen on the minor left singular vectors of W; only A is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, lora_layers, lora_scale, per_target
from rlvr_lite.methods._memory import factor_bytes, outputs_bytes
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    """As PEFT's ``mica`` start, which needs an unquantised weight; here B is a buffer that stays frozen."""
    from rlvr_lite.methods import _spectral, _starts
    from rlvr_lite.methods._computed import FixedLinear

    attached = _spectral.build_started(model, build, _starts.minor_left)
    for _, layer in lora_layers(attached):
        layer.lora_B[ADAPTER] = FixedLinear(layer.lora_B[ADAPTER].weight.detach())
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(layout, adapter, lambda out, inp: {f"lora_A.{ADAPTER}.weight": (r, inp)})


register(
    Method(
        name="mica",
        family="spectral",
        summary="LoRA with B frozen on the smallest left singular directions of W, A trained from zero",
        paper="Rüdiger and Raschka, MiCA",
        arxiv="2604.01694",
        build=_build,
        expected=_expected,
        learning_rates=rates(3e-3, "not measured: as lora_fa, which trains the other half"),
        scale=lora_scale,
        scale_formula="alpha / r",
        layer="lora.Linear(Linear, FixedLinear)",
        cost=(0.99, 1.03),
        memory={
            "nf4": (41.45, 13.59, 0.0, 0.0, 9.7),
            "bf16": (41.45, 13.59, 0.0, 0.0, 9.7),
            "fp32": (32.85, 24.13, 0.0, 0.16, 18.1),
        },
        frozen=outputs_bytes,
        kept=factor_bytes,
    )
)

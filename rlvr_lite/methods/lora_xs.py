"""LoRA-XS: an r x r core between frozen singular factors of W."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, build_lora, lora_scale, per_target
from rlvr_lite.methods._memory import both_bytes, factor_bytes
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    """The core starts at zero: the published start, N(0, 1e-5), with itself subtracted."""
    from rlvr_lite.methods._computed import CoreOut, FixedLinear
    from rlvr_lite.methods._spectral import starts
    from rlvr_lite.methods._starts import singular_factors

    attached = build_lora(model, build)
    for layer, (a, b) in starts(attached, build, singular_factors):
        layer.lora_A[ADAPTER], layer.lora_B[ADAPTER] = FixedLinear(a), CoreOut(b)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(layout, adapter, lambda out, inp: {f"lora_B.{ADAPTER}.core": (r, r)})


register(
    Method(
        name="lora_xs",
        family="extreme",
        summary="a trained r x r matrix between frozen singular factors of W",
        paper="Bałazy et al., LoRA-XS",
        arxiv="2405.17604",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            1e-2,
            "not measured: as rank1, which is of its size",
            paper=4e-3,
            paper_source="4e-3 in the authors' scripts for Mistral-7B (supervised, r = 64)",
        ),
        scale=lora_scale,
        scale_formula="alpha / r",
        layer="lora.Linear(FixedLinear, CoreOut)",
        own_state=True,
        cost=(0.97, 1.04),
        memory={
            "nf4": (29.13, 13.69, 0.0, 0.03, 9.7),
            "bf16": (29.13, 13.69, 0.0, 0.03, 9.7),
            "fp32": (27.11, 23.64, 0.0, 0.07, 18.1),
        },
        frozen=both_bytes,
        kept=factor_bytes,
    )
)

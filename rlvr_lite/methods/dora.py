"""DoRA: the row norms of ``W + s B A`` are trained apart from its directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, build_lora, expected_lora, lora_scale, per_target
from rlvr_lite.methods._memory import factor_bytes
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from rlvr_lite.methods._fast_dora import use_fast_dora

    attached = build_lora(model, build, use_dora=True)
    use_fast_dora(attached, build.blank)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    magnitude = f"lora_magnitude_vector.{ADAPTER}.weight"
    return expected_lora(layout, adapter) | per_target(layout, adapter, lambda out, inp: {magnitude: (out,)})


def _kept(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Both factors, the ratios, and what they do to the bias."""
    return factor_bytes(targets, r, config, size) + 8 * sum(t.out for t in targets)


register(
    Method(
        name="dora",
        family="structural",
        summary="LoRA on the direction of each row of W, its norm trained apart",
        paper="Liu et al., DoRA",
        arxiv="2402.09353",
        build=_build,
        expected=_expected,
        learning_rates=rates(3e-3, "measured: avg@8 .85 and .77 at 3e-3 (two seeds)", paper_source=PAPER),
        scale=lora_scale,
        scale_formula="alpha / r",
        layer="lora.Linear(Linear, Linear) + FastDora",
        paper_row=6,
        cost=(1.11, 1.16),
        memory={
            "nf4": (47.32, 19.75, 5.92, 0.0, 15.9),
            "bf16": (47.32, 19.75, 5.92, 0.0, 15.9),
            "fp32": (50.99, 30.96, 0.0, 0.07, 18.1),
        },
        kept=_kept,
    )
)

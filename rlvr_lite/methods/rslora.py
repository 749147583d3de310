"""rsLoRA: LoRA with the scale ``alpha / sqrt(r)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.methods._lora import build_lora, expected_lora, rslora_scale
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    return build_lora(model, build, use_rslora=True)


register(
    Method(
        name="rslora",
        family="scaling",
        summary="LoRA scaled so that its step does not shrink with the rank",
        paper="Kalajdzievski, rsLoRA",
        arxiv="2312.03732",
        build=_build,
        expected=expected_lora,
        learning_rates=rates(
            5e-4,
            "measured: avg@8 .72, out of distribution .47 at 5e-4; .74 and .42 at 1e-3, collapse at 3e-3",
            paper_source=PAPER,
        ),
        scale=rslora_scale,
        scale_formula="alpha / sqrt(r)",
        trains_like="lora",
        layer="lora.Linear(Linear, Linear)",
        paper_row=3,
        cost=(1.0, 1.0),
    )
)

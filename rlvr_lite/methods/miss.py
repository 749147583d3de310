"""MiSS: one block ``D [r, out]`` a layer, shared by all slices of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import MissConfig

    return attach_config(model, MissConfig(r=build.rank, target_modules=build.targets, task_type="CAUSAL_LM"))


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(layout, adapter, lambda out, inp: {f"miss_block.{ADAPTER}": (r, out)})


register(
    Method(
        name="miss",
        family="structural",
        summary="the input summed over slices of length r, times one trained block",
        paper="Kang and Yin, MiSS",
        arxiv="2409.15371",
        build=_build,
        expected=_expected,
        learning_rates=rates(1e-3, "measured: avg@8 .62 at 1e-3, .29 at 3e-4, collapse at 3e-3", paper_source=PAPER),
        uses=frozenset({"rank", "targets"}),
        rank_limit=lambda out, inp: inp,
        layer="miss.MissLinear",
        paper_row=8,
        cost=(0.93, 0.93),
        memory={
            "nf4": (26.77, 11.64, 0.0, 0.03, 9.7),
            "bf16": (26.71, 11.67, 0.0, 0.0, 9.7),
            "fp32": (27.04, 23.59, 0.0, 0.03, 18.1),
        },
    )
)

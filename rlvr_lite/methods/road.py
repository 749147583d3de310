"""RoAd: pairs of outputs of every layer are turned and stretched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, attach_config, block_size, per_target
from rlvr_lite.methods._rates import VECTORS, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _size(layout: Layout, adapter: AdapterConfig) -> int:
    return block_size("road", layout, adapter, lambda layer: (layer.out,), most=64)


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import RoadConfig
    from peft.tuners.road.layer import RoadLayer

    from rlvr_lite.methods._dtype import keep_dtype

    config = RoadConfig(
        variant="road_1",
        group_size=_size(build.layout, build.adapter),
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    attached = attach_config(model, config)
    keep_dtype(attached, RoadLayer)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    _size(layout, adapter)
    return per_target(
        layout,
        adapter,
        lambda out, inp: {f"road_theta.{ADAPTER}": (out // 2,), f"road_alpha.{ADAPTER}": (out // 2,)},
    )


register(
    Method(
        name="road",
        family="orthogonal",
        summary="pairs of outputs turned by a trained angle and stretched by a trained factor",
        paper="Liao and Monz, 3-in-1: 2D Rotary Adaptation",
        arxiv="2409.00119",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            3e-2, "not measured: as vector methods, between ln_tuning and vera", paper=1e-3, paper_source=VECTORS
        ),
        uses=frozenset({"targets"}),
        options={"block_size": 0},
        allowed={"block_size": (0, math.inf)},
        layer="road.Linear",
        cost=(1.12, 1.07),
        memory={
            "nf4": (56.45, 29.84, 9.99, 0.0, 24.6),
            "bf16": (56.55, 29.84, 9.81, 0.0, 24.6),
            "fp32": (57.49, 37.58, 4.42, 0.0, 28.2),
        },
    )
)

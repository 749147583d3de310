"""C3A: the update is a grid of circulant blocks, each given by one trained row."""

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
    return block_size("c3a", layout, adapter, lambda layer: (layer.inp, layer.out), most=256)


def _build(model: nn.Module, build: Build) -> nn.Module:
    """Kernels start at zero; PEFT's default would start from a random update."""
    from peft import C3AConfig

    config = C3AConfig(
        block_size=_size(build.layout, build.adapter),
        init_weights=True,
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    return attach_config(model, config)


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    b = _size(layout, adapter)
    return per_target(layout, adapter, lambda out, inp: {f"c3a_kernel.{ADAPTER}": (out // b, inp // b, b)})


register(
    Method(
        name="c3a",
        family="structural",
        summary="circulant blocks of trained rows (block_size 0 takes the largest power of two that fits, to 256)",
        paper="Chen et al., Circular Convolution Adaptation",
        arxiv="2407.19342",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            3e-2, "not measured: as vector methods, between ln_tuning and vera", paper=1e-3, paper_source=VECTORS
        ),
        uses=frozenset({"targets"}),
        options={"block_size": 0},
        allowed={"block_size": (0, math.inf)},
        unsupported={
            "nf4": "PEFT adds its update in place to what a 4-bit layer returns; load the base in bf16 or fp32"
        },
        layer="c3a.C3ALinear",
        cost=(2.33, 1.32),
        memory={"bf16": (55.85, 25.62, 7.24, 0.02, 23.9), "fp32": (47.18, 31.96, 0.0, 0.11, 28.2)},
    )
)

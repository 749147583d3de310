"""RandLoRA: a full-rank update as a trained combination of frozen random low-rank ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, attach_config, lora_scale, per_target
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import RandLoraConfig
    from peft.tuners.randlora.layer import RandLoraLayer

    from rlvr_lite.methods._dense import keep_updates
    from rlvr_lite.methods._dtype import keep_dtype

    config = RandLoraConfig(
        r=build.rank,
        randlora_alpha=build.alpha,
        target_modules=build.targets,
        projection_prng_key=build.seed,
        save_projection=True,
        task_type="CAUSAL_LM",
    )
    attached = attach_config(model, config)
    keep_dtype(attached, RandLoraLayer)
    keep_updates(attached, "randlora", build)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None

    def layer(out: int, inp: int) -> Shapes:
        small = min(out, inp)
        bases = -(-small // r)
        return {f"randlora_lambda.{ADAPTER}": (r, bases), f"randlora_gamma.{ADAPTER}": (bases, small)}

    return per_target(layout, adapter, layer)


register(
    Method(
        name="randlora",
        family="structural",
        summary="a full-rank update: trained scales of as many random rank-r products as the layer's size needs",
        paper="Albert et al., RandLoRA",
        arxiv="2502.00987",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as lora"),
        alpha={"tiny": 320, "small": 640, "paper": 640},
        scale=lora_scale,
        scale_formula="alpha / r",
        layer="randlora.Linear",
    )
)

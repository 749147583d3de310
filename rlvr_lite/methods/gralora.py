"""GraLoRA: a LoRA in each of k x k blocks of the weight, at the size of one LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, as_own, attach_config, lora_scale, per_target
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import GraloraConfig
    from peft.tuners.gralora import layer

    from rlvr_lite.methods._granular import GranularLinear

    config = GraloraConfig(
        r=build.rank,
        alpha=build.alpha,
        gralora_k=_blocks(build.layout, build.adapter),
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    attached = attach_config(model, config)
    as_own(attached, layer.Linear, GranularLinear)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r, k = adapter.rank, _blocks(layout, adapter)
    assert r is not None
    return per_target(
        layout,
        adapter,
        lambda out, inp: {f"gralora_A.{ADAPTER}": (k, inp // k, r), f"gralora_B.{ADAPTER}": (k, r, out // k)},
    )


def _blocks(layout: Layout, adapter: AdapterConfig) -> int:
    k = int(adapter.options["k"])
    assert adapter.rank is not None
    assert adapter.targets is not None
    if adapter.rank % k:
        raise UserError(f"k {k} of gralora must divide the rank ({adapter.rank}): choose another")
    for full, layer in layout.targets(adapter.targets).items():
        if layer.out % k or layer.inp % k:
            raise UserError(f"k {k} of gralora must divide {full} ({layer.out} x {layer.inp}): choose another")
    return k


register(
    Method(
        name="gralora",
        family="structural",
        summary="k x k blocks of the weight, each with a LoRA of rank r / k (option k)",
        paper="Jung et al., GraLoRA",
        arxiv="2505.20355",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as lora"),
        options={"k": 2},
        allowed={"k": (1, 64)},
        scale=lora_scale,
        scale_formula="alpha / r",
        layer="rlvr_lite.GranularLinear",
        cost=(1.06, 1.17),
        memory={
            "nf4": (42.8, 13.34, 0.0, 0.0, 11.1),
            "bf16": (42.8, 13.34, 0.0, 0.0, 11.1),
            "fp32": (39.55, 23.87, 0.0, 0.09, 24.2),
        },
    )
)

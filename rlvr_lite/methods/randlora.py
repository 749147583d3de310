"""RandLoRA: a full-rank update as a trained combination of frozen random low-rank ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, attach_config, lora_scale, per_target
from rlvr_lite.methods._memory import if_small_enough
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import RandLoraConfig
    from peft.tuners.randlora.layer import RandLoraLayer

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
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None

    def layer(out: int, inp: int) -> Shapes:
        small = min(out, inp)
        bases = -(-small // r)
        return {f"randlora_lambda.{ADAPTER}": (r, bases), f"randlora_gamma.{ADAPTER}": (bases, small)}

    return per_target(layout, adapter, layer)


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The bases that all layers share: ``A [r, 1, small]`` and ``B [large, bases, r]``."""
    small, large = sorted((max(t.inp for t in targets), max(t.out for t in targets)))
    return 4 * (r * small + large * -(-small // r) * r)


def _kept(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The smaller scaled basis ``[bases r, small]`` of every layer, and the larger one once for each size."""
    pairs = [sorted((t.inp, t.out)) for t in targets]
    own = sum(-(-small // r) * r * small for small, _ in pairs)
    if not if_small_enough(4 * own):
        return 0
    shared = sum(-(-small // r) * r * large for small, large in set(map(tuple, pairs)))
    return size * (own + (shared if size == 2 else 0))


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
        cost=(2.01, 2.14),
        memory={
            "nf4": (46.4, 12.81, 0.0, 2.62, 13.9),
            "bf16": (44.25, 12.83, 0.0, 2.62, 13.9),
            "fp32": (42.27, 22.71, 0.0, 1.01, 18.8),
        },
        frozen=_frozen,
        kept=_kept,
    )
)

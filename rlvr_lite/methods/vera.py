"""VeRA: two trained vectors a layer around random matrices that all layers share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target
from rlvr_lite.methods._rates import VECTORS, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import VeraConfig

    config = VeraConfig(
        r=build.rank,
        target_modules=build.targets,
        projection_prng_key=build.seed,
        save_projection=True,
        d_initial=float(build.adapter.options["d_initial"]),
        task_type="CAUSAL_LM",
    )
    return attach_config(model, config)


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(
        layout, adapter, lambda out, inp: {f"vera_lambda_b.{ADAPTER}": (out,), f"vera_lambda_d.{ADAPTER}": (r,)}
    )


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The two matrices that all layers share."""
    return 4 * r * (max(t.inp for t in targets) + max(t.out for t in targets))


def _kept(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """What each size of layer takes of them, in 16 bits."""
    return size * r * (sum({t.inp for t in targets}) + sum({t.out for t in targets})) if size == 2 else 0


register(
    Method(
        name="vera",
        family="extreme",
        summary="trained scales of rows and ranks around shared random matrices",
        paper="Kopiczko et al., VeRA",
        arxiv="2310.11454",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            1e-1,
            "measured at r = 64: avg@8 .59 at 1e-1, .53 at 3e-2",
            paper=1e-3,
            paper_source=VECTORS,
        ),
        rank={"tiny": 64},
        uses=frozenset({"rank", "targets"}),
        options={"d_initial": 0.1},
        allowed={"d_initial": (1e-7, math.inf)},
        rank_limit=max,
        layer="vera.Linear",
        paper_row=11,
        cost=(0.93, 1.03),
        memory={
            "nf4": (32.25, 20.51, 2.69, 0.0, 13.9),
            "bf16": (32.25, 20.51, 2.69, 0.0, 13.9),
            "fp32": (44.4, 30.41, 0.0, 0.0, 18.1),
        },
        frozen=_frozen,
        kept=_kept,
    )
)

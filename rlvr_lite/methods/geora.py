"""GeoRA: LoRA that starts from the principal part of W where W, or its rank-r approximation, is small."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rlvr_lite.methods._lora import expected_anchored, lora_scale
from rlvr_lite.methods._memory import ANCHORED, both_bytes, stacked_bytes
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from rlvr_lite.methods import _spectral, _starts

    rho = float(build.adapter.options["rho"])
    return _spectral.build_anchored(model, build, partial(_starts.geometry_aware, rho=rho))


register(
    Method(
        name="geora",
        family="spectral",
        summary="LoRA started on W's small entries (masked SVD); the start is subtracted, so W stays whole",
        paper="Zhang et al., GeoRA",
        arxiv="2601.09361",
        build=_build,
        expected=expected_anchored,
        learning_rates=rates(2e-3, "not measured: as lora"),
        options={"rho": 0.2},
        allowed={"rho": (0, 1)},
        scale=lora_scale,
        scale_formula="alpha / r",
        trains_like="anchored",
        layer="lora.Linear(AnchoredIn, AnchoredOut)",
        cost=(1.1, 1.14),
        memory=ANCHORED,
        frozen=both_bytes,
        kept=stacked_bytes,
    )
)

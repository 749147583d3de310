"""OLoRA: LoRA that starts from the first columns and rows of ``W = Q R``."""

from __future__ import annotations

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

    return _spectral.build_anchored(model, build, _starts.qr)


register(
    Method(
        name="olora",
        family="spectral",
        summary="LoRA started on an orthonormal basis of W's first columns; the start is subtracted, so W stays whole",
        paper="Büyükakyüz, OLoRA",
        arxiv="2406.01775",
        build=_build,
        expected=expected_anchored,
        learning_rates=rates(1e-3, "not measured: as pissa"),
        scale=lora_scale,
        scale_formula="alpha / r",
        trains_like="anchored",
        layer="lora.Linear(AnchoredIn, AnchoredOut)",
        cost=(1.1, 1.12),
        memory=ANCHORED,
        frozen=both_bytes,
        kept=stacked_bytes,
    )
)

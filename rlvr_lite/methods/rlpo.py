"""RLPO: LoRA whose A starts as the leading right singular vectors of W, without their singular values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.methods._lora import expected_lora, lora_scale
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    """``A A^T = I`` and ``B = 0`` at first (arXiv 2606.31813, §5.2 and the authors' code); then plain LoRA."""
    from rlvr_lite.methods import _spectral, _starts

    return _spectral.build_started(model, build, _starts.orthonormal_principal)


register(
    Method(
        name="rlpo",
        family="spectral",
        summary="LoRA with A started on orthonormal principal directions of W, B = 0",
        paper="Zhang et al., Geometry-Preserving Orthonormal Initialization",
        arxiv="2606.31813",
        build=_build,
        expected=expected_lora,
        learning_rates=rates(
            2e-3, "not measured: as lora", paper_source="1e-5 in the authors' scripts (constant, r = 16, alpha = 32)"
        ),
        scale=lora_scale,
        scale_formula="alpha / r",
        trains_like="lora",
        layer="lora.Linear(Linear, Linear)",
        cost=(0.99, 1.01),
    )
)

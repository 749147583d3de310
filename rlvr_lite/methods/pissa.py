"""PiSSA: LoRA that starts from the principal part of the base weight."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from rlvr_lite.methods._lora import DROPOUT, DROPOUT_ALLOWED, expected_anchored, lora_scale
from rlvr_lite.methods._memory import ANCHORED, PLAIN, both_bytes, residual_bytes, stacked_bytes
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from rlvr_lite.methods import _spectral, _starts

    return _spectral.build_anchored(model, build, _starts.principal)


def _build_residual(model: nn.Module, build: Build) -> nn.Module:
    from rlvr_lite.methods import _spectral, _starts

    return _spectral.build_residual(model, build, _starts.principal)


def _refresh_residual(model: nn.Module) -> None:
    from rlvr_lite.methods import _spectral

    _spectral.refresh_residual(model)


delta = register(
    Method(
        name="pissa",
        family="spectral",
        summary="LoRA started on the largest singular directions of W; the start is subtracted, so W stays whole",
        paper="Meng et al., PiSSA",
        arxiv="2404.02948",
        build=_build,
        expected=expected_anchored,
        learning_rates=rates(
            1e-3, "measured: avg@8 .82 and .79 at 1e-3 (two seeds), .56 at 3e-4, collapse at 3e-3", paper_source=PAPER
        ),
        options=DROPOUT,
        allowed=DROPOUT_ALLOWED,
        scale=lora_scale,
        scale_formula="alpha / r",
        trains_like="anchored",
        layer="lora.Linear(AnchoredIn, AnchoredOut)",
        paper_row=9,
        cost=(1.07, 1.15),
        memory=ANCHORED,
        frozen=both_bytes,
        kept=stacked_bytes,
    )
)

register(
    dataclasses.replace(
        delta,
        name="pissa:residual",
        summary="LoRA started on the largest singular directions of W; W gives up that part, as published",
        build=_build_residual,
        unsupported={
            "nf4": "its residual would be quantised a second time; use pissa, which is the same in exact arithmetic"
        },
        layer="rlvr_lite.ResidualLinear(AnchoredIn, AnchoredOut)",
        own_state=True,  # the anchors to the bit: one ulp more and the 16-bit residual is another weight
        after_load=_refresh_residual,
        writes_base=True,
        cost=(1.02, 1.1),
        memory=PLAIN,
        frozen=residual_bytes,
    )
)

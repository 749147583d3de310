"""NoRA: LoRA with every column of A scaled to length one, always or once at the start (not the nonlinear NoRA of arXiv 2602.22911)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, build_lora, expected_lora, lora_layers, lora_scale, per_target
from rlvr_lite.methods._memory import factor_bytes
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _options(adapter: AdapterConfig) -> tuple[bool, bool]:
    """Whether A is normalised at each use, and whether it starts as identity blocks."""
    return adapter.options["normalize"] == "always", adapter.options["start"] == "blocks"


def _build(model: nn.Module, build: Build) -> nn.Module:
    """``W x + s B Norm(A) x`` with ``Norm(A)[:, j] = A[:, j] / max(|A[:, j]|, eps)`` (arXiv 2608.31036).

    ``normalize="start"`` is the paper's NoRA-init, ``start="blocks"`` its BIMI.
    """
    import torch
    import torch.nn.functional as F

    from rlvr_lite.methods._computed import NormalizedIn
    from rlvr_lite.methods._starts import block_identity

    always, blocks = _options(build.adapter)
    attached = build_lora(model, build)
    for _, layer in lora_layers(attached):
        a = layer.lora_A[ADAPTER].weight
        with torch.no_grad():
            if blocks:
                a.copy_(block_identity(*a.shape))
            if always:
                layer.lora_A[ADAPTER] = NormalizedIn(a)
            else:
                a.copy_(F.normalize(a, dim=0))
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    always, _ = _options(adapter)
    if not always:
        return expected_lora(layout, adapter)
    r = adapter.rank
    assert r is not None
    return per_target(
        layout,
        adapter,
        lambda out, inp: {f"lora_A.{ADAPTER}.live": (r, inp), f"lora_B.{ADAPTER}.weight": (out, r)},
    )


def _layer(adapter: AdapterConfig) -> str:
    return "lora.Linear(NormalizedIn, Linear)" if _options(adapter)[0] else "lora.Linear(Linear, Linear)"


register(
    Method(
        name="nora",
        family="scaling",
        summary="LoRA with the columns of A kept at length one (or set so once, or started as identity blocks); not the nonlinear NoRA of 2602.22911",
        paper="Kang et al., Normalized Low-Rank Adaptation",
        arxiv="2608.31036",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            1e-3,
            "not measured: half of lora, whose columns of A are shorter",
            paper_source="arXiv 2608.31036 follows the protocol of arXiv 2512.23165: 1e-5 with r = 32, alpha = 64",
        ),
        options={"normalize": "always", "start": "random"},
        allowed={"normalize": ("always", "start"), "start": ("random", "blocks")},
        scale=lora_scale,
        scale_formula="alpha / r",
        layer=_layer,
        own_state=True,
        cost=(1.02, 1.04),
        memory={
            "nf4": (42.06, 13.47, 0.0, 0.0, 9.7),
            "bf16": (42.06, 13.47, 0.0, 0.0, 9.7),
            "fp32": (33.95, 24.02, 0.0, 0.14, 18.1),
        },
        kept=factor_bytes,
    )
)

"""LN-tuning: the weights of every normalisation layer are trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, PREFIX, attach_config
from rlvr_lite.methods._rates import VECTORS, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    """PEFT's own default would take ``post_attention_layernorm`` alone, and leave the copies in the base's dtype."""
    from peft import LNTuningConfig
    from peft.tuners.ln_tuning.layer import LNTuningLayer

    from rlvr_lite.methods._dtype import keep_dtype

    names = list(build.layout.norms)
    with warnings.catch_warnings():
        # PEFT knows sizes of linear layers only, and does not need a norm's.
        warnings.filterwarnings("ignore", "Unsupported layer type", UserWarning)
        attached = attach_config(model, LNTuningConfig(target_modules=names, task_type="CAUSAL_LM"))
    for module in attached.modules():
        if isinstance(module, LNTuningLayer):
            module.ln_tuning_layers.float()
    keep_dtype(attached, LNTuningLayer)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    return {
        f"{PREFIX}{name}.ln_tuning_layers.{ADAPTER}.{part}": (size,)
        for name, size in layout.norms.items()
        for part in ("weight", "bias")
        if f"{name}.{part}" in layout.tensors
    }


register(
    Method(
        name="ln_tuning",
        family="extreme",
        summary="the weights (and biases, if any) of every normalisation layer",
        paper="Zhao et al., Tuning LayerNorm in Attention",
        arxiv="2312.11420",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            3e-2,
            "measured: avg@8 .76 at 3e-2, .36 at 1e-2",
            paper=1e-3,
            paper_source=VECTORS,
        ),
        uses=frozenset(),
        layer="ln_tuning.LNTuningLayer",
        paper_row=13,
        cost=(0.86, 0.81),
        memory={
            "nf4": (23.79, 11.77, 0.0, 0.02, 7.7),
            "bf16": (23.79, 11.77, 0.0, 0.02, 7.7),
            "fp32": (34.63, 23.63, 0.0, 0.06, 15.4),
        },
    )
)

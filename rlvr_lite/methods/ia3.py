"""(IA)^3: one trained scale for every output of a layer, or every input of the last layer of an MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, matches
from rlvr_lite.methods._lora import ADAPTER, PREFIX, attach_config
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn

#: Layers scaled at their input, as in the paper: the second of an MLP.
_FEEDFORWARD = "down_proj"


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import IA3Config
    from peft.tuners.ia3.layer import IA3Layer

    from rlvr_lite.methods._dtype import keep_dtype

    feedforward = [name for name in build.targets if matches(name, _FEEDFORWARD)]
    config = IA3Config(target_modules=build.targets, feedforward_modules=feedforward, task_type="CAUSAL_LM")
    attached = attach_config(model, config)
    keep_dtype(attached, IA3Layer)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    assert adapter.targets is not None
    return {
        f"{PREFIX}{full}.ia3_l.{ADAPTER}": (1, layer.inp) if matches(full, _FEEDFORWARD) else (layer.out, 1)
        for full, layer in layout.targets(adapter.targets).items()
    }


register(
    Method(
        name="ia3",
        family="extreme",
        summary="one trained scale for every output (input of down_proj)",
        paper="Liu et al., (IA)^3",
        arxiv="2205.05638",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            1e-1,
            "measured on k, v and down_proj: avg@8 .29 at 1e-1, .28 at 1e-2",
            paper=3e-3,
            paper_source="3e-3 in arXiv 2205.05638, supervised",
        ),
        uses=frozenset({"targets"}),
        layer="ia3.Linear",
        paper_row=12,
        cost=(0.9, 0.85),
        memory={
            "nf4": (33.93, 28.85, 6.69, 0.0, 16.2),
            "bf16": (27.12, 25.31, 4.06, 0.0, 13.2),
            "fp32": (44.1, 34.43, 0.0, 0.0, 15.4),
        },
    )
)

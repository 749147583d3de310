"""HiRA: every weight is scaled by one plus the entry of a low-rank matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import HiraConfig

    from rlvr_lite.methods._dense import keep_updates

    attached = attach_config(model, HiraConfig(r=build.rank, target_modules=build.targets, task_type="CAUSAL_LM"))
    keep_updates(attached, "hira", build)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(layout, adapter, lambda out, inp: {f"hira_A.{ADAPTER}": (r, inp), f"hira_B.{ADAPTER}": (out, r)})


register(
    Method(
        name="hira",
        family="structural",
        summary="W times (1 + B A), entry by entry: an update of high rank",
        paper="Huang et al., HiRA (ICLR 2025)",
        arxiv="",
        build=_build,
        expected=_expected,
        learning_rates=rates(5e-3, "not measured: above lora, since entries of W scale the update down"),
        uses=frozenset({"rank", "targets"}),
        layer="hira.Linear",
    )
)

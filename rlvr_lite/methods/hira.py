"""HiRA: every weight is scaled by one plus the entry of a low-rank matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target
from rlvr_lite.methods._memory import if_small_enough
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import HiraConfig

    return attach_config(model, HiraConfig(r=build.rank, target_modules=build.targets, task_type="CAUSAL_LM"))


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(layout, adapter, lambda out, inp: {f"hira_A.{ADAPTER}": (r, inp), f"hira_B.{ADAPTER}": (out, r)})


def _kept(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The update itself."""
    numbers = sum(t.inp * t.out for t in targets)
    return size * numbers if if_small_enough(4 * numbers) else 0


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
        cost=(2.06, 1.98),
        memory={
            "nf4": (38.9, 13.64, 0.0, 4.57, 19.4),
            "bf16": (38.89, 13.64, 0.0, 2.56, 15.9),
            "fp32": (29.14, 22.44, 11.46, 4.97, 26.8),
        },
        kept=_kept,
    )
)

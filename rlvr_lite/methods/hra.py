"""HRA: the input of every layer passes r trained Householder reflections before the frozen weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, as_own, attach_config, per_target
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import HRAConfig
    from peft.tuners.hra.layer import HRALinear

    from rlvr_lite.methods._reflections import ReflectedLinear

    _even(build.rank)
    attached = attach_config(model, HRAConfig(r=build.rank, target_modules=build.targets, task_type="CAUSAL_LM"))
    as_own(attached, HRALinear, ReflectedLinear)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    _even(r)
    return per_target(layout, adapter, lambda out, inp: {f"hra_u.{ADAPTER}": (inp, r)})


def _even(rank: int) -> None:
    if rank % 2:
        raise UserError(f"rank of hra must be even, got {rank}: pairs of equal reflections start as the identity")


def _kept(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Both factors of the reflections."""
    return 2 * size * sum(r * t.inp for t in targets)


register(
    Method(
        name="hra",
        family="orthogonal",
        summary="the input reflected r times by trained Householder reflections",
        paper="Yuan et al., HRA",
        arxiv="2405.17484",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as lora"),
        uses=frozenset({"rank", "targets"}),
        rank_limit=lambda out, inp: inp,
        layer="rlvr_lite.ReflectedLinear",
        cost=(1.04, 1.0),
        memory={
            "nf4": (38.87, 19.56, 0.0, 0.01, 16.2),
            "bf16": (38.87, 19.56, 0.0, 0.01, 13.5),
            "fp32": (34.39, 24.05, 0.0, 0.19, 15.4),
        },
        kept=_kept,
    )
)

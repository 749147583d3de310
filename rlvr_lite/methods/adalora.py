"""AdaLoRA: a budget of ranks that moves to the layers where it matters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn


def _first_rank(rank: int) -> int:
    """Ranks a layer starts with: half as many again as it keeps on average (arXiv 2303.10512, §4.1).

    >>> _first_rank(32), _first_rank(1)
    (48, 2)
    """
    return rank + max(1, rank // 2)


def _build(model: nn.Module, build: Build) -> nn.Module:
    """Warm-up for a fifth of the steps, then a cubic fall to the budget, then a quarter of the steps at it."""
    from peft import AdaLoraConfig

    from rlvr_lite.methods._budget import use_exact_allocator

    config = AdaLoraConfig(
        init_r=_first_rank(build.rank),
        target_r=build.rank,
        lora_alpha=build.alpha,
        total_step=build.total_steps,
        tinit=build.total_steps // 5,
        tfinal=build.total_steps // 4,
        deltaT=int(build.adapter.options["every"]),
        orth_reg_weight=float(build.adapter.options["orthogonal"]),
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    attached = attach_config(model, config)
    use_exact_allocator(attached)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    assert adapter.rank is not None
    r = _first_rank(adapter.rank)
    return per_target(
        layout,
        adapter,
        lambda out, inp: {
            f"lora_A.{ADAPTER}": (r, inp),
            f"lora_B.{ADAPTER}": (out, r),
            f"lora_E.{ADAPTER}": (r, 1),
        },
    )


def _penalty(model: nn.Module) -> Tensor | None:
    from rlvr_lite.methods._budget import orthogonal_penalty

    return orthogonal_penalty(model)


def _after_backward(model: nn.Module, step: int) -> None:
    from rlvr_lite.methods._budget import allocate

    allocate(model, step)


def _state(model: nn.Module) -> dict[str, Tensor]:
    from rlvr_lite.methods._budget import allocator_state

    return allocator_state(model)


def _load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    from rlvr_lite.methods._budget import load_allocator_state

    load_allocator_state(model, state)


def _budget(model: nn.Module) -> dict[str, int]:
    from rlvr_lite.methods._budget import budget

    return budget(model)


register(
    Method(
        name="adalora",
        family="structural",
        summary="LoRA as P diag(E) Q with 1.5 r ranks a layer at first and r on average at the end",
        paper="Zhang et al., AdaLoRA",
        arxiv="2303.10512",
        build=_build,
        expected=_expected,
        learning_rates=rates(3e-2, "measured: avg@8 .81 at 3e-2, .74 at 1e-2, .25 at 3e-3", paper_source=PAPER),
        options={"every": 5, "orthogonal": 0.1},
        allowed={"every": (1, math.inf), "orthogonal": (0, math.inf)},
        scale=lambda alpha, r: alpha / _first_rank(r),
        scale_formula="alpha / (1.5 r)",
        rank_limit=lambda out, inp: max(1, min(out, inp) * 2 // 3),
        layer="adalora.SVDLinear",
        penalty=_penalty,
        after_backward=_after_backward,
        state=_state,
        load_state=_load_state,
        budget=_budget,
        own_state=True,
        paper_row=7,
        cost=(1.04, 1.09),
        memory={
            "nf4": (48.96, 13.28, 0.0, 0.0, 13.8),
            "bf16": (48.96, 13.28, 0.0, 0.0, 11.7),
            "fp32": (34.45, 23.97, 0.0, 0.12, 18.1),
        },
    )
)

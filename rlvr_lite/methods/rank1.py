"""Rank-1 LoRA: the smallest plain LoRA, with a learning rate of its own."""

from __future__ import annotations

from rlvr_lite.methods._lora import build_lora, expected_lora, lora_scale
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Method

register(
    Method(
        name="rank1",
        family="extreme",
        summary="LoRA with r = 1",
        paper="Hu et al., LoRA; Schulman et al., LoRA Without Regret",
        arxiv="2106.09685",
        build=build_lora,
        expected=expected_lora,
        learning_rates=rates(1e-2, "measured: avg@8 .72 at 1e-2, .55 at 3e-3 (two seeds)", paper_source=PAPER),
        alpha={"tiny": 2, "small": 2, "paper": 2},
        uses=frozenset({"alpha", "targets"}),
        fixed_rank=1,
        scale=lora_scale,
        scale_formula="alpha / 1",
        layer="lora.Linear(Linear, Linear)",
        paper_row=2,
        cost=(0.96, 0.94),
    )
)

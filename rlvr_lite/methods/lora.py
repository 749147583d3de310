"""LoRA: ``y = W x + (alpha / r) B A x`` with ``A`` random and ``B = 0``."""

from __future__ import annotations

from rlvr_lite.methods._lora import DROPOUT, DROPOUT_ALLOWED, build_lora, expected_lora, lora_scale
from rlvr_lite.methods._rates import PAPER, rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Method

register(
    Method(
        name="lora",
        family="baseline",
        summary="a low-rank update B A beside every frozen linear layer",
        paper="Hu et al., LoRA",
        arxiv="2106.09685",
        build=build_lora,
        expected=expected_lora,
        learning_rates=rates(
            2e-3,
            "measured: avg@8 .82 at 2e-3 (three seeds), .69 at 1e-3, .83 at 3e-3, collapse at 1e-2",
            small=2e-4,
            small_source="measured on SmolLM2-135M: reward .23 to .56 in 16 steps (one seed)",
            paper_source=PAPER,
        ),
        options=DROPOUT,
        allowed=DROPOUT_ALLOWED,
        scale=lora_scale,
        scale_formula="alpha / r",
        trains_like="lora",
        layer="lora.Linear(Linear, Linear)",
        paper_row=1,
        cost=(0.99, 1.0),
    )
)

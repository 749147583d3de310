"""LoRA+: B learns faster than A by a fixed ratio."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlvr_lite.methods._lora import build_lora, expected_lora, lora_scale
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Method

if TYPE_CHECKING:
    import torch
    from torch import nn


def _optimizer(model: nn.Module, learning_rate: float, weight_decay: float, eight_bit: bool) -> torch.optim.Optimizer:
    from rlvr_lite.methods._optimizers import lora_plus

    return lora_plus(model, learning_rate, weight_decay, eight_bit)


register(
    Method(
        name="lora_plus",
        family="optimizer",
        summary="LoRA with a learning rate for B that is `ratio` times that of A",
        paper="Hayou et al., LoRA+",
        arxiv="2402.12354",
        build=build_lora,
        expected=expected_lora,
        learning_rates=rates(
            2e-4,
            "measured with ratio 16: avg@8 .68 at 2e-4, .50 at 1e-3",
            paper=1.25e-6,
            paper_source="gives B the 2e-5 it has in the code of arXiv 2512.23165 (1e-5 with ratio 2)",
        ),
        options={"ratio": 16.0},
        allowed={"ratio": (1, math.inf)},
        scale=lora_scale,
        scale_formula="alpha / r",
        trains_like="lora",
        layer="lora.Linear(Linear, Linear)",
        optimizer=_optimizer,
        paper_row=4,
        cost=(1.02, 1.0),
    )
)

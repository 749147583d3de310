"""Losses that fade a token out as its ratio moves away, instead of clipping it."""

from __future__ import annotations

import torch
from torch import Tensor

from rlvr_lite.grpo.losses._registry import Loss, Tokens, mean_of_rows, register


def _soft_gate(x: Tokens) -> Tensor:
    r""":math:`-\frac{4}{\tau} \sigma(\tau (r - 1)) A` with the temperature of the advantage's sign (SAPO)."""
    temperature = torch.where(x.advantages > 0, x.options["temperature_pos"], x.options["temperature_neg"])
    return -(4 / temperature) * torch.sigmoid(temperature * (x.log_ratio.exp() - 1)) * x.advantages


register(
    Loss(
        name="sapo",
        formula=_soft_gate,
        weights=mean_of_rows,
        source="Soft Adaptive Policy Optimization (arXiv 2511.20347)",
        options={"temperature_pos": 1.0, "temperature_neg": 1.05},
        clips=(),
        trl={"temperature_pos": "sapo_temperature_pos", "temperature_neg": "sapo_temperature_neg"},
    )
)

"""Losses that clip the ratio of probabilities, as PPO does."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlvr_lite.grpo.losses._registry import (
    Level,
    Loss,
    Tokens,
    Weights,
    mean_of_local_tokens,
    mean_of_rows,
    mean_of_tokens,
    register,
    sum_over_longest,
    sum_per_row,
)


def _clipped(x: Tokens) -> Tensor:
    r""":math:`-\min(\min(r, \delta) A, \mathrm{clip}(r, 1-\epsilon_{low}, 1+\epsilon_{high}) A)` (PPO, eq. 7).

    A finite :math:`\delta` bounds what a token of negative advantage may weigh (INTELLECT-2, arXiv 2505.07291, §3.4).
    """
    ratio = x.log_ratio.exp()
    clipped = ratio.clamp(1 - x.clip_low, 1 + x.clip_high)
    if math.isfinite(x.options["delta"]):
        ratio = ratio.clamp(max=x.options["delta"])
    return -torch.minimum(ratio * x.advantages, clipped * x.advantages)


def _register(name: str, weights: Weights, source: str, levels: tuple[Level, ...] = ("token", "sequence")) -> None:
    register(
        Loss(
            name=name,
            formula=_clipped,
            weights=weights,
            source=source,
            options={"delta": math.inf},
            levels=levels,
            trl={"delta": "delta"},
        )
    )


_register("grpo", mean_of_rows, "Shao et al. 2024, DeepSeekMath (arXiv 2402.03300), eq. 3")
_register("dapo", mean_of_tokens, "Yu et al. 2025, DAPO (arXiv 2503.14476), eq. 8 and 12")
_register("dr_grpo", sum_over_longest, "Liu et al. 2025, Understanding R1-Zero-Like Training (arXiv 2503.20783), §3.2")
_register("bnpo", mean_of_local_tokens, "token mean of the local batch, as TRL's bnpo")
_register("gspo", mean_of_rows, "Zheng et al. 2025, GSPO (arXiv 2507.18071), §4.1", levels=("sequence",))
_register("luspo", sum_per_row, "LUSPO (arXiv 2602.05261): GSPO, rows weighed by length", levels=("sequence", "token"))

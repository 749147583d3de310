"""Losses that weigh ``log pi`` by a factor without gradient, and never lose a token's gradient to a clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlvr_lite.grpo.losses._registry import Loss, Tokens, mean_of_tokens, register, sum_over_longest

_LEAST, _MOST = math.log(1e-8), 20.0  # of a sequence's log ratio, as the authors bound it


def _score_function(x: Tokens) -> Tensor:
    r""":math:`-A \log\pi` (REINFORCE, Williams 1992)."""
    return -x.advantages * x.logprobs


def _bounded_weight(x: Tokens) -> Tensor:
    r""":math:`-\mathrm{sg}(\min(r, 1+\epsilon_{high})) A \log\pi` (CISPO, eq. 4-5, no lower bound)."""
    return -x.log_ratio.detach().exp().clamp(max=1 + x.clip_high) * x.advantages * x.logprobs


def _gamma_factor(x: Tokens) -> Tensor:
    r""":math:`w^k e^{\lambda (1 - w)}` ``[B, 1]``, w the product of a row's ratios (VESPO).

    k and :math:`\lambda` are those of the advantage's sign. One where a row is as likely as when it was sampled.
    """
    row = (x.log_ratio.detach().clamp(-_MOST, _MOST) * x.mask).sum(-1, keepdim=True).clamp(_LEAST, _MOST)
    gains = x.advantages.sum(-1, keepdim=True) >= 0  # of a row's tokens some may be left out with 0
    power = torch.where(gains, x.options["k_pos"], x.options["k_neg"])
    decay = torch.where(gains, x.options["lambda_pos"], x.options["lambda_neg"])
    return (power * row + decay * (1 - row.exp())).exp()


def _gamma_weight(x: Tokens) -> Tensor:
    r""":math:`-\phi A \log\pi` (VESPO)."""
    return -_gamma_factor(x) * x.advantages * x.logprobs


register(
    Loss(
        name="reinforce",
        formula=_score_function,
        weights=sum_over_longest,
        source="Williams 1992, up to the constant length",
        clips=(),
        levels=("token",),
    )
)
register(
    Loss(
        name="cispo",
        formula=_bounded_weight,
        weights=mean_of_tokens,
        source="MiniMax 2025, MiniMax-M1 (arXiv 2506.13585), eq. 4-5",
        clips=("high",),
        trl_bound=1.0,
    )
)
register(
    Loss(
        name="vespo",
        formula=_gamma_weight,
        weights=mean_of_tokens,
        source="VESPO (arXiv 2602.10693)",
        options={"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0},
        clips=(),
        levels=("token",),
        trl={name: f"vespo_{name}" for name in ("k_pos", "lambda_pos", "k_neg", "lambda_neg")},
        factor=_gamma_factor,
        trl_factor="vespo/phi_seq_mean",
    )
)

r"""What it costs that one program samples and another scores, and the importance weights that correct it.

The sampler's policy :math:`\mu` and the scorer's :math:`\pi` have the same weights but may round differently, so that
tokens are drawn from a distribution which is not quite the one whose gradient is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlvr_lite.grpo.losses import Level

__all__ = ["effective_sample_size", "truncated_weights"]

TRUNCATION = 2.0


def truncated_weights(
    scored: Tensor, sampled: Tensor, mask: Tensor, *, level: Level = "token", limit: float = TRUNCATION
) -> Tensor:
    r"""Truncated importance weights, :math:`\min(\pi / \mu, C)` (Ionides 2008, Truncated Importance Sampling, eq. 6).

    A token's by default (Yao et al. 2025, Your Efficient RL Framework Secretly Brings You Off-Policy RL Training); at
    the level of sequences a row's, the product of the ratios of its tokens (Liu et al. 2025, When Speed Kills
    Stability). Exactly 1 where the two agree.

    Args:
        scored: ``[B, C]`` log-probabilities under the scorer, of the weights that sampled.
        sampled: ``[B, C]`` as the sampler computed them.
        mask: ``[B, C]``, 1 at sampled tokens.
        level: of what there is one weight.
        limit: C.

    Returns:
        ``[B, C]``, or ``[B, 1]`` at the level of sequences; without a gradient.

    >>> truncated_weights(torch.zeros(1, 2), torch.tensor([[0.0, -3.0]]), torch.ones(1, 2))
    tensor([[1., 2.]])
    """
    difference = torch.where(mask.bool(), scored.detach() - sampled, 0)
    if level == "sequence":
        difference = difference.sum(-1, keepdim=True)
    return difference.exp().clamp(max=limit)


def effective_sample_size(log_weights: Tensor) -> float:
    r"""Share of the sample that is left after weighting, :math:`(\sum w)^2 / (n \sum w^2)` (Kish 1965).

    Args:
        log_weights: ``[n]``.

    >>> effective_sample_size(torch.zeros(5))
    1.0
    """
    shifted = (log_weights.double() - log_weights.double().amax()).exp()
    return float(shifted.sum() ** 2 / (len(shifted) * shifted.square().sum()))

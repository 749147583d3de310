"""From completions to rewards, advantages and what is worth logging about them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlvr_lite.grpo import LossStats, live_groups

__all__ = ["MicroBatchStats", "RewardStats", "combine", "of_micro_batches", "per_function"]


def combine(rewards: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the reward functions, ``R_i = sum_f w_f r_if``, leaving out those that gave none.

    Args:
        rewards: ``[B, F]``, NaN where a function gave no reward.
        weights: ``[F]``.

    Returns:
        ``[B]``; NaN where no function gave a reward.

    >>> combine(torch.tensor([[1.0, 2.0], [float("nan"), 2.0]]), torch.tensor([1.0, 0.5])).tolist()
    [2.0, 1.0]
    """
    total = (rewards * weights).nansum(dim=1)
    return total.masked_fill(rewards.isnan().all(dim=1), torch.nan)


@dataclass(frozen=True)
class RewardStats:
    """What the rewards of a generation batch look like, for the log.

    Attributes:
        reward: mean over valid completions.
        reward_std: standard deviation over them.
        zero_variance: share of groups without a signal.
        invalid: share of completions without a reward.
    """

    reward: float
    reward_std: float
    zero_variance: float
    invalid: float

    @classmethod
    def of(cls, rewards: Tensor) -> RewardStats:
        """Statistics of rewards ``[P, G]`` with NaN where invalid."""
        valid = rewards[~rewards.isnan()]
        mean = valid.mean().item() if len(valid) else 0.0
        spread = valid.std().item() if len(valid) > 1 else 0.0
        dead = (~live_groups(rewards)).float().mean().item()
        return cls(mean, spread, dead, 1 - len(valid) / rewards.numel())


def per_function(rewards: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Mean of each reward function over the completions it judged; ``None`` if it judged none."""
    means = rewards.nanmean(dim=0).tolist()
    return {name: None if mean != mean else mean for name, mean in zip(names, means, strict=True)}


@dataclass(frozen=True)
class MicroBatchStats:
    """What was measured in one backward pass.

    Attributes:
        stats: sums over its tokens.
        entropy: sum over its tokens, in nats.
        gap: largest difference between sampled and scored log-probability of a token; ``None`` where unknown.
    """

    stats: LossStats
    entropy: float
    gap: float | None


def of_micro_batches(measured: Sequence[MicroBatchStats], *, kl: bool) -> dict[str, float]:
    """Measures a token over the micro-batches of a micro-step, by the names of TRL's log; none without micro-batches."""
    if not measured:
        return {}
    means = functools.reduce(operator.add, (one.stats for one in measured)).means()
    found = {
        "clip_ratio/low_mean": means["clipped_low"],
        "clip_ratio/high_mean": means["clipped_high"],
        "entropy": sum(one.entropy for one in measured) / max(means["tokens"], 1.0),
    }
    gaps = [one.gap for one in measured if one.gap is not None]
    return found | ({"kl": means["kl"]} if kl else {}) | ({"sampling/logprob_difference": max(gaps)} if gaps else {})

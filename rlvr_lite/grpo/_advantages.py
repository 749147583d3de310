"""From the rewards of a group to advantages, and which groups carry a signal at all."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["group_advantages", "live_groups", "select_groups"]


def group_advantages(
    rewards: Tensor,
    *,
    scale: Literal["group", "batch", "none"] = "group",
    leave_one_out: bool = False,
    eps: float = 1e-4,
) -> Tensor:
    r"""How much better each completion is than the others of its prompt.

    .. math:: A_{ig} = \frac{r_{ig} - b_{ig}}{s_i + \epsilon}

    The baseline b is the mean of the group (GRPO: Shao et al. 2024, DeepSeekMath, §4.1.2) or, with ``leave_one_out``,
    the mean of the group's other rewards (RLOO: Ahmadian et al. 2024, Back to Basics, §3.3). The scale s is the
    standard deviation of the group (GRPO) or of the whole batch (Lite PPO: Liu et al. 2025, Tricks or Traps), with
    Bessel's correction; ``none`` does not divide (Dr. GRPO: Liu et al. 2025, R1-Zero-Like Training, §3.2).

    A NaN reward marks an invalid sample: it takes no part in means and deviations and has advantage 0. All advantages
    of a group without two valid rewards that differ are exactly 0.

    Args:
        rewards: ``[P, G]``.
        scale: what the centred reward is divided by.
        leave_one_out: leave a completion's own reward out of its baseline.
        eps: added to the deviation.

    Returns:
        Advantages ``[P, G]``, in at least single precision.

    Raises:
        ValueError: ``rewards`` is not a matrix, or the scale is unknown.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]), scale="none")
    tensor([[ 0.5000, -0.5000, -0.5000,  0.5000],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])
    >>> group_advantages(torch.tensor([[3.0, 0.0, torch.nan, 0.0]]), scale="none", leave_one_out=True)
    tensor([[ 3.0000, -1.5000,  0.0000, -1.5000]])
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards must be [prompts, group], got shape {list(rewards.shape)}")
    rewards = rewards if rewards.dtype == torch.float64 else rewards.float()
    valid = ~rewards.isnan()
    count = valid.sum(-1, keepdim=True)
    mean = rewards.nanmean(-1, keepdim=True)
    advantages = rewards - mean
    if leave_one_out:
        advantages = advantages * (count / (count - 1).clamp(min=1))
    if scale == "group":
        advantages = advantages / (_deviation(rewards, mean, count, dim=-1) + eps)
    elif scale == "batch":
        advantages = advantages / (_deviation(rewards, rewards.nanmean(), valid.sum(), dim=None) + eps)
    elif scale != "none":
        raise ValueError(f"scale must be 'group', 'batch' or 'none', got {scale!r}")
    # Rounding of the mean would leave about 1e-7 / eps in a constant group: not a signal, and its rows can be dropped.
    return torch.where(valid & live_groups(rewards)[:, None], advantages, 0)


def _deviation(rewards: Tensor, mean: Tensor, count: Tensor, dim: int | None) -> Tensor:
    """Standard deviation over the valid rewards, n - 1 in the denominator."""
    squares = (rewards - mean).square().nansum(dim=dim, keepdim=dim is not None)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def live_groups(rewards: Tensor) -> Tensor:
    """Which groups hold at least two valid rewards that differ, bool ``[P]``; the others have no gradient.

    >>> live_groups(torch.tensor([[1.0, 0.0], [1.0, 1.0], [torch.nan, 1.0]]))
    tensor([ True, False, False])
    """
    valid = ~rewards.isnan()
    low = torch.where(valid, rewards, torch.inf).amin(-1)
    high = torch.where(valid, rewards, -torch.inf).amax(-1)
    return high > low


def select_groups(rewards: Tensor, want: int, *, fill: bool = False) -> Tensor:
    """Which of the drawn groups a step trains on: dynamic sampling (DAPO: Yu et al. 2025, §3.2, eq. 11).

    The first ``want`` groups that are live, in the order drawn, so that a harder prompt drawn later never displaces an
    earlier one. With ``fill`` (no rounds left) dead groups, again in order, make up what is missing.

    Args:
        rewards: ``[P, G]`` of all groups drawn so far for this step.
        want: groups in a full step.
        fill: whether dead groups may be taken.

    Returns:
        int64 ``[<= want]``, ascending group numbers.

    >>> rewards = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> select_groups(rewards, 3)
    tensor([1, 3])
    >>> select_groups(rewards, 3, fill=True)
    tensor([0, 1, 3])
    """
    live = live_groups(rewards)
    chosen = live.nonzero().squeeze(-1)[:want]
    if fill and len(chosen) < want:
        chosen = torch.cat([chosen, (~live).nonzero().squeeze(-1)[: want - len(chosen)]])
    return chosen.sort().values

"""From completions to rewards, advantages and what is worth logging about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr_lite.grpo import LossStats, RolloutBatch, effective_sample_size, live_groups
from rlvr_lite.grpo.losses import Loss

__all__ = ["MicroBatchStats", "RewardStats", "combine", "normalized", "of_functions", "of_lengths", "of_micro_batches"]


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


def normalized(rewards: Tensor, weights: Tensor, group_size: int) -> Tensor:
    r"""Advantages of several rewards, each normalised in its group before they are added (GDPO, arXiv 2601.05242).

    .. math:: z_{if} = \frac{r_{if} - \mu_f}{\sigma_f + \epsilon}, \quad
        A_i = \frac{\sum_f w_f z_{if} - \mu}{\sigma + \epsilon}

    with the inner moments over a group and the outer ones over all completions; :math:`\epsilon` is 1e-4, as in TRL.

    Args:
        rewards: ``[B, F]``, NaN where a function gave none.
        weights: ``[F]``.
        group_size: completions a prompt.

    Returns:
        ``[B]``, 0 where no function gave a reward.
    """
    groups = rewards.view(-1, group_size, rewards.shape[1])
    each = (groups - groups.nanmean(1, keepdim=True)) / (_spread(groups, 1) + 1e-4)
    total = combine(each.view_as(rewards), weights)
    return ((total - total.nanmean()) / (_spread(total, 0) + 1e-4)).nan_to_num(nan=0.0)


def _spread(values: Tensor, dim: int) -> Tensor:
    """Standard deviation over the values that are numbers; NaN of fewer than two."""
    count = (~values.isnan()).sum(dim, keepdim=True)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (count - 1)).where(count > 1, torch.nan).sqrt()


def of_functions(rewards: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Mean and standard deviation of each reward function over the completions it judged; NaN if it judged too few."""
    means, spreads = rewards.nanmean(0).tolist(), _spread(rewards, 0)[0].tolist()
    found: dict[str, float] = {}
    for name, mean, spread in zip(names, means, spreads, strict=True):
        found |= {f"rewards/{name}/mean": mean, f"rewards/{name}/std": spread}
    return found


def of_lengths(lengths: Tensor, ended: Tensor) -> dict[str, float]:
    """Lengths ``[B]`` of completions, of all and of those with an end, under the names of TRL's log."""
    lengths = lengths.float()
    terminated = lengths[ended] if ended.any() else torch.zeros(1)
    found = {"completions/clipped_ratio": 1 - ended.float().mean().item()}
    for kind, values in (("", lengths), ("terminated_", terminated)):
        found |= {
            f"completions/mean_{kind}length": values.mean().item(),
            f"completions/min_{kind}length": values.min().item(),
            f"completions/max_{kind}length": values.max().item(),
        }
    return found


@dataclass(frozen=True)
class SamplerGap:
    """How far the sampler is from the scorer, on the rows of a micro-batch.

    Attributes:
        total: sum of the absolute differences of log-probabilities, in nats.
        largest: of a token.
        tokens: how many.
        log_weights: of each row, log of its probability under the scorer over that under the sampler, ``[B]``.
    """

    total: float
    largest: float
    tokens: float
    log_weights: Tensor

    @classmethod
    def of(cls, scored: Tensor, sampled: Tensor, mask: Tensor) -> SamplerGap:
        """From log-probabilities ``[B, C]`` of the same tokens."""
        difference = torch.where(mask.bool(), scored - sampled, 0)
        size = difference.abs()
        return cls(size.sum().item(), size.max().item(), float(mask.sum()), difference.sum(1).cpu())


@dataclass(frozen=True)
class MicroBatchStats:
    """What was measured in one backward pass.

    Attributes:
        kl: sum over its tokens; 0 without a reference.
        entropy: sum over its tokens, in nats.
        tokens: of each row, ``[B]``.
        low: share of a row's tokens that the lower bound of the ratio clips, ``[B]``; at the level of sequences 0 or 1.
        high: the same of the upper bound, ``[B]``.
        sequences: whether the ratio is a row's, so that a row counts once however long it is.
        factor: sum over its rows of the loss's own factor.
        gap: between sampled and scored log-probabilities; ``None`` where unknown.
    """

    kl: float
    entropy: float
    tokens: Tensor
    low: Tensor
    high: Tensor
    sequences: bool
    factor: float
    gap: SamplerGap | None

    @classmethod
    def of(
        cls,
        stats: LossStats,
        entropy: Tensor,
        logprobs: Tensor,
        rows: RolloutBatch,
        *,
        sequences: bool,
        clip_low: float,
        clip_high: float,
    ) -> MicroBatchStats:
        """From what the loss was made of, each ``[B, C]``."""
        mask = rows.mask.to(logprobs.dtype)
        tokens = mask.sum(1)
        advantages = rows.advantages if rows.advantages.dim() == 2 else rows.advantages[:, None]
        log_ratio = torch.zeros_like(logprobs) if rows.old_logprobs is None else (logprobs - rows.old_logprobs) * mask
        if sequences:
            log_ratio = (log_ratio.sum(1) / tokens.clamp(min=1))[:, None].expand_as(mask)
        ratio = log_ratio.exp()

        def share(clipped: Tensor) -> Tensor:
            return ((clipped * mask).sum(1) / tokens.clamp(min=1)).cpu()

        gap = None
        if rows.sampled_logprobs is not None:
            scored = logprobs if rows.old_logprobs is None else rows.old_logprobs
            gap = SamplerGap.of(scored, rows.sampled_logprobs, rows.mask)
        return cls(
            stats.kl.item(),
            (entropy * mask).sum().item(),
            tokens.cpu(),
            share((ratio < 1 - clip_low) & (advantages < 0)),
            share((ratio > 1 + clip_high) & (advantages > 0)),
            sequences,
            stats.factor.item(),
            gap,
        )


def of_micro_batches(
    measured: Sequence[MicroBatchStats], left_out: RolloutBatch, loss: Loss, *, kl: bool
) -> dict[str, float]:
    """Measures of a micro-step under the names of TRL's log, over all of its rows.

    Rows without a gradient are not computed again: they are not clipped, and the entropy of their tokens enters by what
    it is expected to be, minus the log-probability of what was sampled.

    Args:
        measured: of its micro-batches.
        left_out: the rows that are in none of them.
        loss: decides which names there are.
        kl: whether there is a reference.
    """
    found: dict[str, float] = {}
    rows = [left_out.mask.sum(1).float().cpu(), *(one.tokens for one in measured)]
    tokens = float(sum(part.sum() for part in rows))
    surprise = 0.0
    if left_out.sampled_logprobs is not None:
        surprise = -float((left_out.sampled_logprobs * left_out.mask).sum())
    else:
        tokens -= float(rows[0].sum())
    found["entropy"] = (sum(one.entropy for one in measured) + surprise) / max(tokens, 1.0)
    if kl:
        found["kl"] = sum(one.kl for one in measured) / max(sum(float(one.tokens.sum()) for one in measured), 1.0)
    if loss.clips:
        found |= _clipped(measured, rows, loss)
    if loss.trl_factor:  # rows without a gradient count as they were sampled
        found[loss.trl_factor] = (sum(one.factor for one in measured) + len(rows[0])) / max(sum(map(len, rows)), 1)
    gaps = [one.gap for one in measured if one.gap is not None]
    if gaps:
        found |= {
            "sampling/sampling_logp_difference/mean": sum(gap.total for gap in gaps)
            / max(sum(gap.tokens for gap in gaps), 1.0),
            "sampling/sampling_logp_difference/max": max(gap.largest for gap in gaps),
            "sampling/effective_sample_size": effective_sample_size(torch.cat([gap.log_weights for gap in gaps])),
        }
    return found


def _clipped(measured: Sequence[MicroBatchStats], rows: Sequence[Tensor], loss: Loss) -> dict[str, float]:
    lengths = torch.cat(list(rows))
    none = torch.zeros(len(rows[0]))
    low, high = (torch.cat([none, *(getattr(one, side) for one in measured)]) for side in ("low", "high"))
    scored = lengths > 0
    weights = scored.float() if measured and measured[0].sequences else lengths

    def mean(share: Tensor) -> float:
        return float((share * weights).sum() / weights.sum().clamp(min=1))

    if loss.clips == ("high",):
        return {"cispo_clip_ratio": mean(high)}
    return {
        "clip_ratio/low_mean": mean(low),
        "clip_ratio/high_mean": mean(high),
        "clip_ratio/region_mean": mean(low + high),
        "clip_ratio/low_min": float(low[scored].min()) if scored.any() else 0.0,
        "clip_ratio/high_max": float(high[scored].max()) if scored.any() else 0.0,
    }

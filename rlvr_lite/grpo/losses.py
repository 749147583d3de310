r"""Policy losses: a per-token formula, and a weight for each row that holds all of the normalisation.

.. math:: L = \sum_i w_i \sum_t m_{it} \ell_{it}

The weights :math:`w_i` are computed once over every row sampled for an optimizer step (:func:`row_weights`). After
that, rows whose advantage is zero can be dropped and the rest split into micro-batches of any sizes: the losses and
gradients of the parts add up to those of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import torch
from torch import Tensor

__all__ = ["LOSSES", "LossStats", "PolicyLoss", "policy_loss", "row_weights"]


@dataclass(frozen=True)
class _Tokens:
    """What a per-token formula sees, each ``[B, C]`` or broadcastable to it."""

    logprobs: Tensor
    log_ratio: Tensor
    advantages: Tensor
    mask: Tensor
    clip_low: float
    clip_high: float


def _clipped(x: _Tokens, log_ratio: Tensor) -> Tensor:
    r""":math:`-\min(r A, \mathrm{clip}(r, 1-\epsilon_{low}, 1+\epsilon_{high}) A)`, r = exp(log_ratio) (PPO, eq. 7)."""
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * x.advantages, ratio.clamp(1 - x.clip_low, 1 + x.clip_high) * x.advantages)


def _token_ratio(x: _Tokens) -> Tensor:
    return _clipped(x, x.log_ratio)


def _sequence_log_ratio(x: _Tokens) -> Tensor:
    r""":math:`\log s_i = \frac{1}{|o_i|} \sum_t \log r_{it}`, ``[B, 1]`` (GSPO, §4.1)."""
    return (x.log_ratio * x.mask).sum(-1, keepdim=True) / x.mask.sum(-1, keepdim=True).clamp(min=1)


def _sequence_ratio(x: _Tokens) -> Tensor:
    return _clipped(x, _sequence_log_ratio(x)).expand_as(x.logprobs)


def _clipped_weight(x: _Tokens) -> Tensor:
    r""":math:`-\mathrm{sg}(\min(r, 1+\epsilon_{high})) A \log\pi` (CISPO, eq. 4-5, no lower bound)."""
    return -x.log_ratio.detach().exp().clamp(max=1 + x.clip_high) * x.advantages * x.logprobs


def _score_function(x: _Tokens) -> Tensor:
    r""":math:`-A \log\pi` (REINFORCE, Williams 1992)."""
    return -x.advantages * x.logprobs


def _mean_of_row_means(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    return 1 / (lengths.clamp(min=1) * len(lengths))


def _mean_of_tokens(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    return (1 / lengths.sum().clamp(min=1)).expand_as(lengths)


def _mean_of_local_token_means(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    parts = int(local[-1]) + 1
    tokens = torch.zeros(parts, dtype=lengths.dtype, device=lengths.device).index_add(0, local, lengths)
    return 1 / (tokens.clamp(min=1)[local] * parts)


def _fixed_length(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    return torch.full_like(lengths, 1 / (len(lengths) * max_length))


@dataclass(frozen=True)
class PolicyLoss:
    """A loss of the literature: its per-token formula, its weights, and where it was defined."""

    per_token: Callable[[_Tokens], Tensor]
    weights: Callable[[Tensor, int, Tensor], Tensor]
    source: str
    clips: tuple[str, ...] = ("low", "high")
    sequence_level: bool = False


#: The losses by name.
LOSSES: Mapping[str, PolicyLoss] = MappingProxyType(
    {
        "grpo": PolicyLoss(
            _token_ratio, _mean_of_row_means, "Shao et al. 2024, DeepSeekMath (arXiv 2402.03300), eq. 3"
        ),
        "dapo": PolicyLoss(_token_ratio, _mean_of_tokens, "Yu et al. 2025, DAPO (arXiv 2503.14476), eq. 8 and 12"),
        "dr_grpo": PolicyLoss(
            _token_ratio, _fixed_length, "Liu et al. 2025, Understanding R1-Zero-Like Training (arXiv 2503.20783), §3.2"
        ),
        "bnpo": PolicyLoss(_token_ratio, _mean_of_local_token_means, "token mean of the local batch, as TRL's bnpo"),
        "cispo": PolicyLoss(
            _clipped_weight, _mean_of_tokens, "MiniMax 2025, MiniMax-M1 (arXiv 2506.13585), eq. 4-5", clips=("high",)
        ),
        "gspo": PolicyLoss(
            _sequence_ratio, _mean_of_row_means, "Zheng et al. 2025, GSPO (arXiv 2507.18071), §4.1", sequence_level=True
        ),
        "reinforce": PolicyLoss(_score_function, _fixed_length, "Williams 1992, up to the constant length", clips=()),
    }
)


def _loss(name: str) -> PolicyLoss:
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]


def row_weights(lengths: Tensor, *, loss: str, max_length: int, local_rows: int | None = None) -> Tensor:
    """The weight of every token of a row in the loss of one optimizer step.

    ==================  =======================================================
    grpo, gspo          1 / (n * length of the row)
    dapo, cispo         1 / tokens of the step
    dr_grpo, reinforce  1 / (n * max_length)
    bnpo                1 / (local batches * tokens of the row's local batch)
    ==================  =======================================================

    Args:
        lengths: ``[n]``, scored tokens of every row sampled for the step, those without a signal included.
        loss: a name of ``LOSSES``.
        max_length: longest completion that could have been sampled.
        local_rows: rows of a local batch (bnpo only); ``None`` takes the whole step, which equals dapo.

    Returns:
        float32 ``[n]``.

    >>> row_weights(torch.tensor([2, 6]), loss="grpo", max_length=10)
    tensor([0.2500, 0.0833])
    >>> row_weights(torch.tensor([2, 6]), loss="dapo", max_length=10)
    tensor([0.1250, 0.1250])
    """
    lengths = lengths.float()
    local = torch.arange(len(lengths), device=lengths.device) // (local_rows or max(len(lengths), 1))
    return _loss(loss).weights(lengths, max_length, local)


@dataclass(frozen=True)
class LossStats:
    """Detached sums over the scored tokens of a micro-batch; the stats of parts add up with ``+``.

    Attributes:
        tokens: how many tokens were scored.
        clipped_low: of these, with a ratio below 1 - clip_low and a negative advantage.
        clipped_high: of these, with a ratio above 1 + clip_high and a positive advantage.
        ratio: sum of the probability ratios.
        kl: sum of the KL estimates; 0 without a reference.
    """

    tokens: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    ratio: Tensor
    kl: Tensor

    def __add__(self, other: LossStats) -> LossStats:
        return LossStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def means(self) -> dict[str, float]:
        """Everything per token, with the number of tokens."""
        tokens = float(self.tokens)
        sums = {f.name: float(getattr(self, f.name)) for f in fields(self) if f.name != "tokens"}
        return {"tokens": tokens, **{name: value / max(tokens, 1.0) for name, value in sums.items()}}


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    loss: str = "dapo",
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    unbiased_kl: bool = True,
    weights: Tensor | None = None,
    max_length: int | None = None,
) -> tuple[Tensor, LossStats]:
    r"""The loss of some rows, and what happened in them.

    Let r be the ratio of a token's probability to the one it was sampled with. Per token:

    - grpo, dapo, dr_grpo, bnpo: :math:`-\min(r A, \mathrm{clip}(r, 1-\epsilon_{low}, 1+\epsilon_{high}) A)`
    - gspo: the same with the row's geometric mean ratio in place of r
    - cispo: :math:`-\mathrm{sg}(\min(r, 1+\epsilon_{high})) A \log\pi`
    - reinforce: :math:`-A \log\pi`

    plus ``kl_coef`` times :math:`e^d - d - 1` with :math:`d = \log\pi_{ref} - \log\pi` (Schulman's k3 estimate;
    DeepSeekMath, eq. 4), by default multiplied by r (the row's, in gspo), which makes its gradient that of the reverse KL
    divergence, also where r is 1 (DeepSeek-V3.2, arXiv 2512.02556). The sources of the losses are in ``LOSSES``.

    Args:
        logprobs: ``[B, C]`` of the policy, with gradient.
        old_logprobs: ``[B, C]`` at sampling time; ``None`` for the first update on fresh samples, where they are equal.
        advantages: ``[B]``, or ``[B, C]`` a token.
        mask: ``[B, C]``, 1 at scored tokens.
        loss: a name of ``LOSSES``.
        clip_low: :math:`\epsilon_{low}`.
        clip_high: :math:`\epsilon_{high}`.
        ref_logprobs: ``[B, C]`` of the reference policy; needed if ``kl_coef`` is not 0.
        kl_coef: weight of the KL term (beta).
        unbiased_kl: whether the KL estimate is multiplied by the ratio; without, its gradient is biased.
        weights: ``[B]`` of these rows, taken from :func:`row_weights` over the whole step; ``None`` where these rows
            are the whole step.
        max_length: longest possible completion, used if ``weights`` is ``None``; C where not given.

    Returns:
        The loss ``[]``, to be summed over micro-batches, and its :class:`LossStats`.

    Raises:
        ValueError: unknown loss, or a KL term without reference.

    >>> logprobs = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    >>> mask = torch.tensor([[1, 1], [1, 0]])
    >>> loss, stats = policy_loss(logprobs, None, torch.tensor([1.0, -1.0]), mask, loss="dapo")
    >>> round(loss.item(), 4), stats.means()["tokens"]
    (-0.3333, 3.0)
    """
    chosen = _loss(loss)
    mask = mask.to(logprobs.dtype)
    if weights is None:
        weights = row_weights(mask.sum(-1), loss=loss, max_length=max_length or mask.shape[1])
    advantages = advantages.to(logprobs.dtype)
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    # Masked positions may hold anything, also infinities: they must not reach exp().
    log_ratio = torch.where(mask.bool(), logprobs - old, 0)
    x = _Tokens(torch.where(mask.bool(), logprobs, 0), log_ratio, advantages, mask, clip_low, clip_high)
    per_token = chosen.per_token(x)
    kl = torch.zeros_like(per_token)
    if kl_coef:
        if ref_logprobs is None:
            raise ValueError("a KL term needs ref_logprobs")
        difference = torch.where(mask.bool(), ref_logprobs - logprobs, 0)
        kl = difference.exp() - difference - 1
        if unbiased_kl:
            kl = kl * (_sequence_log_ratio(x) if chosen.sequence_level else x.log_ratio).exp()
        per_token = per_token + kl_coef * kl
    total = ((per_token * mask).sum(-1) * weights.to(logprobs.dtype)).sum()
    return total, _stats(chosen, x, kl)


@torch.no_grad()
def _stats(chosen: PolicyLoss, x: _Tokens, kl: Tensor) -> LossStats:
    ratio = (_sequence_log_ratio(x) if chosen.sequence_level else x.log_ratio).exp()
    low = (ratio < 1 - x.clip_low) & (x.advantages < 0) & ("low" in chosen.clips)
    high = (ratio > 1 + x.clip_high) & (x.advantages > 0) & ("high" in chosen.clips)
    return LossStats(
        x.mask.sum(), (low * x.mask).sum(), (high * x.mask).sum(), (ratio * x.mask).sum(), (kl * x.mask).sum()
    )

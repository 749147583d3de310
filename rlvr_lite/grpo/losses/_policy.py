"""The loss of some rows, the weight of a row, and what happened in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rlvr_lite.grpo.losses._registry import Level, Loss, Tokens, get

__all__ = ["LossStats", "policy_loss", "row_weights"]


def row_weights(lengths: Tensor, *, loss: str, max_length: int, local_rows: int | None = None) -> Tensor:
    """The weight of every token of a row in the loss of one optimizer step.

    ==================  =======================================================
    grpo, gspo, sapo    1 / (n * length of the row)
    dapo, cispo, vespo  1 / tokens of the step
    dr_grpo, reinforce  1 / (n * max_length)
    bnpo                1 / (local batches * tokens of the row's local batch)
    luspo               1 / n
    ==================  =======================================================

    Args:
        lengths: ``[n]``, scored tokens of every row sampled for the step, those without a signal included.
        loss: its name.
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
    return get(loss).weights(lengths, max_length, local)


@dataclass(frozen=True)
class LossStats:
    """Detached sums over the scored tokens of a micro-batch; the stats of parts add up with ``+``.

    Attributes:
        tokens: how many tokens were scored.
        clipped_low: of these, with a ratio below 1 - clip_low and a negative advantage.
        clipped_high: of these, with a ratio above 1 + clip_high and a positive advantage.
        ratio: sum of the probability ratios.
        kl: sum of the KL estimates; 0 without a reference.
        rows: how many rows there are.
        factor: sum over rows of the loss's own factor (VESPO); as many as rows for a loss without.
    """

    tokens: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    ratio: Tensor
    kl: Tensor
    rows: Tensor
    factor: Tensor

    def __add__(self, other: LossStats) -> LossStats:
        return LossStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def means(self) -> dict[str, float]:
        """Everything per token and the factor per row, with the number of both."""
        sums = {f.name: float(getattr(self, f.name)) for f in fields(self)}
        tokens, rows, factor = (sums.pop(name) for name in ("tokens", "rows", "factor"))
        means = {name: value / max(tokens, 1.0) for name, value in sums.items()}
        return {"tokens": tokens, "rows": rows, **means, "factor": factor / max(rows, 1.0)}


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    loss: str = "dapo",
    options: Mapping[str, float] | None = None,
    level: Level | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    unbiased_kl: bool = True,
    weights: Tensor | None = None,
    correction: Tensor | None = None,
    max_length: int | None = None,
) -> tuple[Tensor, LossStats]:
    r"""The loss of some rows, and what happened in them.

    Let r be the ratio of a token's probability to the one it was sampled with. Per token:

    - grpo, dapo, dr_grpo, bnpo: :math:`-\min(r A, \mathrm{clip}(r, 1-\epsilon_{low}, 1+\epsilon_{high}) A)`
    - gspo, luspo: the same with the row's geometric mean ratio in place of r
    - sapo: :math:`-\frac{4}{\tau} \sigma(\tau (r - 1)) A`
    - cispo: :math:`-\mathrm{sg}(\min(r, 1+\epsilon_{high})) A \log\pi`
    - vespo: :math:`-\mathrm{sg}(w^k e^{\lambda (1 - w)}) A \log\pi`, w the product of the row's ratios
    - reinforce: :math:`-A \log\pi`

    plus ``kl_coef`` times :math:`e^d - d - 1` with :math:`d = \log\pi_{ref} - \log\pi` (Schulman's k3 estimate;
    DeepSeekMath, eq. 4), by default multiplied by r (the row's, at the level of sequences), which makes its gradient that of the reverse KL
    divergence, also where r is 1 (DeepSeek-V3.2, arXiv 2512.02556). Each loss names its source (``losses.get(name).source``).

    Args:
        logprobs: ``[B, C]`` of the policy, with gradient.
        old_logprobs: ``[B, C]`` at sampling time; ``None`` for the first update on fresh samples, where they are equal.
        advantages: ``[B]``, or ``[B, C]`` a token.
        mask: ``[B, C]``, 1 at scored tokens.
        loss: its name.
        options: the loss's own, over its defaults: ``delta`` of the clipped losses, temperatures of sapo, k and lambda of
            vespo.
        level: whether the ratio is a token's or, ``sequence``, the geometric mean over the row; ``None`` takes the loss's own.
        clip_low: :math:`\epsilon_{low}`.
        clip_high: :math:`\epsilon_{high}`; the bound is 1 more, for every loss.
        ref_logprobs: ``[B, C]`` of the reference policy; needed if ``kl_coef`` is not 0.
        kl_coef: weight of the KL term (beta).
        unbiased_kl: whether the KL estimate is multiplied by the ratio; without, its gradient is biased.
        weights: ``[B]`` of these rows, taken from :func:`row_weights` over the whole step; ``None`` where these rows
            are the whole step.
        correction: importance weights ``[B, C]`` or ``[B, 1]`` of :func:`truncated_weights`, which multiply a token's
            loss without its KL term; ``None`` where sampler and scorer are one.
        max_length: longest possible completion, used if ``weights`` is ``None``; C where not given.

    Returns:
        The loss ``[]``, to be summed over micro-batches, and its :class:`LossStats`.

    Raises:
        ValueError: an unknown loss or option, a level at which it is not defined, or a KL term without reference.

    >>> logprobs = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    >>> mask = torch.tensor([[1, 1], [1, 0]])
    >>> loss, stats = policy_loss(logprobs, None, torch.tensor([1.0, -1.0]), mask, loss="dapo")
    >>> round(loss.item(), 4), stats.means()["tokens"]
    (-0.3333, 3.0)
    """
    chosen = get(loss)
    ratios = chosen.at(level)
    mask = mask.to(logprobs.dtype)
    if weights is None:
        weights = row_weights(mask.sum(-1), loss=loss, max_length=max_length or mask.shape[1])
    advantages = advantages.to(logprobs.dtype)
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    # Masked positions may hold anything, also infinities: they must not reach exp().
    log_ratio = torch.where(mask.bool(), logprobs - old, 0)
    if ratios == "sequence":  # log s_i = 1/|o_i| sum_t log r_it (GSPO, §4.1)
        log_ratio = (log_ratio * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    scored = torch.where(mask.bool(), logprobs, 0)
    x = Tokens(scored, log_ratio, advantages, mask, clip_low, clip_high, chosen.with_defaults(options or {}))
    per_token = chosen.formula(x)
    if correction is not None:
        per_token = per_token * correction.to(logprobs.dtype)
    kl = torch.zeros_like(logprobs)
    if kl_coef:
        if ref_logprobs is None:
            raise ValueError("a KL term needs ref_logprobs")
        difference = torch.where(mask.bool(), ref_logprobs - logprobs, 0)
        kl = difference.exp() - difference - 1
        if unbiased_kl:
            kl = kl * log_ratio.exp()
        per_token = per_token + kl_coef * kl
    total = ((per_token * mask).sum(-1) * weights.to(logprobs.dtype)).sum()
    return total, _stats(chosen, x, kl)


@torch.no_grad()
def _stats(chosen: Loss, x: Tokens, kl: Tensor) -> LossStats:
    ratio = x.log_ratio.exp()
    low = (ratio < 1 - x.clip_low) & (x.advantages < 0) & ("low" in chosen.clips)
    high = (ratio > 1 + x.clip_high) & (x.advantages > 0) & ("high" in chosen.clips)
    rows = x.mask.new_tensor(float(len(x.mask)))
    factor = rows if chosen.factor is None else chosen.factor(x).sum()
    low, high, ratio, kl = ((part * x.mask).sum() for part in (low, high, ratio, kl))
    return LossStats(x.mask.sum(), low, high, ratio, kl, rows, factor)

"""From logits and one uniform number a row to the next token, by inverting the cumulative distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import Truncation

__all__ = ["choose"]

_WIDTH = 256  # tokens summed together before the cumulative sum, which then runs over V / 256 sums


def choose(logits: Tensor, uniforms: Tensor | None, sampling: SamplingConfig) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability.

    With z = logits / temperature, the token is the smallest t with ``sum_{i<=t} w_i > u * sum_i w_i``, where w is
    softmax(z) in which :class:`rlvr_lite.grpo.Truncation` has put zeros. The log-probability is that of the tokens
    kept, from which the token was drawn and over which training scores it; at temperature 0 that of softmax(logits).

    Args:
        logits: ``[B, V]``.
        uniforms: float64 ``[B]`` in [0, 1); unused at temperature 0.
        sampling: temperature, top_k, top_p, min_p.

    Returns:
        tokens int64 ``[B]`` and log-probabilities float32 ``[B]``.
    """
    z = logits.float()
    if not sampling.greedy and sampling.temperature != 1:
        z = z / sampling.temperature
    peak = z.amax(-1, keepdim=True)
    weight = (z - peak).exp_()
    if sampling.greedy:
        token = z.argmax(-1)
        total = weight.sum(-1)
    else:
        assert uniforms is not None
        weight = Truncation(sampling.top_k, sampling.top_p, sampling.min_p)(weight)
        sums = _block_sums(weight)
        total = sums.sum(-1).float()
        token = _invert(weight, sums, uniforms)
    logprob = z.gather(-1, token[:, None]).squeeze(-1) - peak.squeeze(-1) - total.log()
    return token, logprob


def _block_sums(weight: Tensor) -> Tensor:
    """Float64 sums ``[B, ceil(V / 256)]`` over runs of 256 tokens."""
    short = -weight.shape[-1] % _WIDTH
    padded = torch.nn.functional.pad(weight, (0, short)) if short else weight
    return padded.unflatten(-1, (-1, _WIDTH)).sum(-1, dtype=torch.float64)


def _invert(weight: Tensor, sums: Tensor, uniforms: Tensor) -> Tensor:
    """Smallest token whose cumulative weight exceeds ``u`` of the total: first its run of 256, then the token in it."""
    edges = sums.cumsum(-1)
    wanted = uniforms[:, None] * edges[:, -1:]
    run = _first_above(edges, wanted)
    columns = run * _WIDTH + torch.arange(_WIDTH, device=weight.device)
    inside = columns < weight.shape[-1]
    columns = columns.clamp(max=weight.shape[-1] - 1)
    share = weight.gather(-1, columns).masked_fill(~inside, 0).cumsum(-1, dtype=torch.float64)
    step = _first_above(share, wanted - (edges - sums).gather(-1, run))
    return columns.gather(-1, step).squeeze(-1)


def _first_above(cumulative: Tensor, wanted: Tensor) -> Tensor:
    """Index ``[B, 1]`` of the first entry above ``wanted``; where rounding leaves none, the last that adds weight."""
    last = (cumulative < cumulative[:, -1:]).sum(-1, keepdim=True)
    return torch.searchsorted(cumulative, wanted, right=True).minimum(last)

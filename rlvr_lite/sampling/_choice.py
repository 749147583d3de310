"""From logits and one uniform number a row to the next token, by inverting the cumulative distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from rlvr_lite.config import SamplingConfig

__all__ = ["choose"]

_HEAD = 256  # most likely tokens looked at before the whole vocabulary is sorted for top_p
_WIDTH = 256  # tokens summed together before the cumulative sum, which then runs over V / 256 sums


def choose(logits: Tensor, uniforms: Tensor | None, sampling: SamplingConfig) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability.

    With z = logits / temperature, the token is the smallest t with ``sum_{i<=t} w_i > u * sum_i w_i``, where w is
    softmax(z) outside of which top_k and then top_p (nucleus, Holtzman et al. 2020, eq. 2) have put zeros. Tokens tied
    with the last one kept are kept too. The log-probability is that of softmax(z) before top_k and top_p, which is what
    the training pass scores; at temperature 0 it is that of softmax(logits).

    Args:
        logits: ``[B, V]``.
        uniforms: float64 ``[B]`` in [0, 1); unused at temperature 0.
        sampling: temperature, top_k, top_p.

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
        sums = _block_sums(weight)
        total = sums.sum(-1).float()
        kept = _filter(weight, sampling)
        token = _invert(kept, sums if kept is weight else _block_sums(kept), uniforms)
    logprob = z.gather(-1, token[:, None]).squeeze(-1) - peak.squeeze(-1) - total.log()
    return token, logprob


def _filter(weight: Tensor, sampling: SamplingConfig) -> Tensor:
    """``weight`` with zeros outside the top_k most likely tokens and then outside the nucleus of what is left."""
    if 0 < sampling.top_k < weight.shape[-1]:
        least = weight.topk(sampling.top_k, dim=-1).values[:, -1:]
        weight = weight.masked_fill(weight < least, 0)
    if sampling.top_p < 1:
        weight = weight.masked_fill(weight < _nucleus_edge(weight, sampling.top_p), 0)
    return weight


def _nucleus_edge(weight: Tensor, top_p: float) -> Tensor:
    """Weight ``[B, 1]`` of the last token of the smallest set whose share reaches ``top_p``."""
    needed = top_p * weight.sum(-1, keepdim=True, dtype=torch.float64)
    largest = _largest(weight, needed, whole=weight.device.type != "cpu")
    mass = largest.cumsum(-1, dtype=torch.float64)
    last = (mass < needed).sum(-1, keepdim=True).clamp(max=largest.shape[-1] - 1)
    return largest.gather(-1, last)


def _largest(weight: Tensor, needed: Tensor, *, whole: bool) -> Tensor:
    """Weights in falling order, at least as many as make up ``needed``; ``whole`` sorts all without looking at any.

    On a CPU a look costs nothing and sorting much; on a GPU a look is a synchronisation.
    """
    if not whole:
        first = weight.topk(min(_HEAD, weight.shape[-1]), dim=-1).values
        if not bool((first.sum(-1, keepdim=True, dtype=torch.float64) < needed).any()):
            return first
    return weight.sort(dim=-1, descending=True).values


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

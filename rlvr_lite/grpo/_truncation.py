"""Which tokens a sampler may choose: top_k, top_p and min_p leave the others out, of sampling and of scoring alike."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Truncation"]

_HEAD = 256  # most likely tokens looked at before the whole vocabulary is sorted for top_p


class Truncation(NamedTuple):
    """What is left of a distribution over tokens, in the order of transformers' logits processors.

    Tokens tied with the last one kept are kept too.

    Attributes:
        top_k: so many most likely tokens; 0 keeps all.
        top_p: of these the smallest set whose probability reaches this (nucleus, Holtzman et al. 2020, eq. 2).
        min_p: of these the tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024, arXiv
            2407.01082, eq. 2); 0 keeps all.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is left out."""
        return not self.top_k and self.top_p >= 1 and not self.min_p

    def __call__(self, weight: Tensor, always: Tensor | None = None) -> Tensor:
        """``weight`` with zeros at the tokens left out.

        Args:
            weight: ``[B, V]``, probabilities up to a factor for each row.
            always: int64 ``[B]``, a token of each row that is kept whatever it weighs.

        >>> Truncation(min_p=0.5)(torch.tensor([[1.0, 0.6, 0.2]])).tolist()
        [[1.0, 0.6000000238418579, 0.0]]
        """
        kept = weight
        if 0 < self.top_k < weight.shape[-1]:
            kept = kept.masked_fill(kept < kept.topk(self.top_k, dim=-1).values[:, -1:], 0)
        if self.top_p < 1:
            kept = kept.masked_fill(kept < _nucleus_edge(kept, self.top_p), 0)
        if self.min_p:
            kept = kept.masked_fill(kept < self.min_p * kept.amax(-1, keepdim=True), 0)
        if always is None or kept is weight:
            return kept
        return kept.scatter(-1, always[:, None], weight.gather(-1, always[:, None]))


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

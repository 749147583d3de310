"""Any method's update as the factors of a plain LoRA: exact where it is low-rank, the best approximation elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr_lite.analysis.spectrum import Update, directions

__all__ = ["LowRank", "best_rank", "low_rank"]

_EXACT_SIDE = 1024  # up to this shorter side a whole decomposition is cheap
_OVERSAMPLE = 16
_ROUNDS = 4
_ROUNDING = 1e-5  # relative error below which an approximation of fp32 tensors is exact


@dataclass(frozen=True)
class LowRank:
    """Factors of every adapted matrix, of one common rank.

    Attributes:
        factors: by module, B ``[out, r]`` and A ``[r, in]`` in fp32, with the scale folded into B: ``dW = B A``.
        rank: r.
        error: ``|dW - B A| / |dW|`` over all that was changed, in the Frobenius norm; includes what was left out.
        left_out: changed parameters that are no matrix of a linear layer, which LoRA cannot hold.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    rank: int
    error: float
    left_out: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether nothing but rounding is lost."""
        return self.error < _ROUNDING and not self.left_out


def low_rank(updates: Iterable[Update], rank: int | None, default: int) -> LowRank:
    """The factors of a plain LoRA with the effect of ``updates``.

    Updates that come as factors are taken as they are, of whatever rank they have; dense ones by their ``default``
    largest singular triplets, which is the best approximation of that rank (Eckart and Young 1936) and exact where the
    update has no higher rank. Layers of lower rank are filled with zeros, because other tools expect one rank.

    Args:
        updates: of a trained model.
        rank: r of the result for all; ``None`` takes what is exact for factors and ``default`` for dense updates.
        default: rank for dense updates.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    left_out: list[str] = []
    square = missed = 0.0
    for update in updates:
        if update.weight().ndim != 2:
            left_out.append(update.name)
            part = float(update.delta().square().sum())
            square, missed = square + part, missed + part
            continue
        b, a, whole, lost = _factors(update, rank, default)
        found[update.name] = (b, a)
        square, missed = square + whole, missed + lost
    common = max((a.shape[0] for _, a in found.values()), default=1) or 1
    padded = {name: (_pad(b, common, 1).float(), _pad(a, common, 0).float()) for name, (b, a) in found.items()}
    return LowRank(padded, common, math.sqrt(missed / square) if square else 0.0, tuple(left_out))


def _factors(update: Update, rank: int | None, default: int) -> tuple[Tensor, Tensor, float, float]:
    """B and A in fp64, ``|dW|^2``, and the part of it that they lack."""
    if update.factors is not None:
        b, a, scale = update.checked_factors()
        if rank is None or a.shape[0] <= rank:
            return scale * b, a, float(((b.T @ b) * (a @ a.T)).sum()) * scale**2, 0.0
        thin = directions(update)
        values = thin.values
        b, a = _balance(thin.left[:, :rank], values[:rank], thin.right[:, :rank])
        return b, a, float(values.square().sum()), float(values[rank:].square().sum())
    delta = update.delta()
    b, a = best_rank(delta, default if rank is None else rank)
    return b, a, float(delta.square().sum()), float((delta - b @ a).square().sum())


def best_rank(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B ``[out, r]`` and A ``[r, in]`` of the closest matrix of rank r; fewer columns where ``delta`` has a lower rank.

    Above a shorter side of 1024 by subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4), which comes
    within a hundredth of the least error.
    """
    if min(delta.shape) <= _EXACT_SIDE:
        left, values, vh = torch.linalg.svd(delta, full_matrices=False)
        right = vh.T
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same run gives the same file
            left, values, right = torch.svd_lowrank(delta, q=min(rank + _OVERSAMPLE, *delta.shape), niter=_ROUNDS)
    keep = min(rank, int((values > values[0] * 1e-12).sum())) if len(values) and values[0] > 0 else 0
    return _balance(left[:, :keep], values[:keep], right[:, :keep])


def _balance(left: Tensor, values: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    root = values.sqrt()
    return left * root, (right * root).T


def _pad(factor: Tensor, rank: int, side: int) -> Tensor:
    shape = list(factor.shape)
    shape[side] = rank - shape[side]
    return torch.cat([factor, factor.new_zeros(shape)], side).contiguous()

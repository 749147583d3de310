"""Where in the base's singular subspaces an update's energy lies, against a random update of the same rank and norm."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr_lite.analysis._spectrum_base import BaseSpectrum, Side
from rlvr_lite.analysis._spectrum_update import Directions

__all__ = ["GRID", "SHARES", "Region", "SideEnergy", "chance", "side_energy"]

BINS = 10
#: Shares of W's energy that define the leading subspaces.
SHARES = (0.5, 0.8, 0.9, 0.95, 0.99)
#: Points of the cumulative curve, as fractions of the singular values' indices.
GRID = tuple(i / 50 for i in range(51))


@dataclass(frozen=True)
class Region:
    """A set of the base's singular directions and what an update puts there.

    Attributes:
        count: number of directions.
        energy: share of |dW|_F^2 in them, in [0, 1].
        expected: the same for a random update.
        deviation: its standard deviation over random updates.
    """

    count: int
    energy: float
    expected: float
    deviation: float

    @property
    def ratio(self) -> float:
        """Energy over its expectation; 1 is random."""
        return self.energy / self.expected


@dataclass(frozen=True)
class SideEnergy:
    """Energy of dW over the singular vectors of W of one side: |dW v_j|^2 (right) or |u_j' dW|^2 (left), normalised.

    What a randomised decomposition did not reach is ``None``.

    Attributes:
        side: ``right`` (input directions) or ``left`` (output directions).
        dimension: n, the length of the vectors.
        bins: ten bins of equal index width over the singular values, largest first.
        outside: energy orthogonal to all kept singular vectors (the null space of a wide or tall W, for instance).
        shares: the leading subspaces that hold 50, 80, 90, 95 and 99 % of W's energy.
        top_rank: as many leading directions as dW has rank (where PiSSA starts).
        bottom_rank: as many trailing ones (where MiLoRA starts).
        alignment: n |W dW'|_F^2 / (|W|_F^2 |dW|_F^2) on the right, n |W' dW|_F^2 / ... on the left: the energy weighed
            by sigma^2; 1 is random, needs no bins and no decomposition.
        curve: cumulative energy at :data:`GRID`.
    """

    side: Side
    dimension: int
    bins: tuple[Region | None, ...]
    outside: float
    shares: tuple[Region | None, ...]
    top_rank: Region | None
    bottom_rank: Region | None
    alignment: float
    curve: tuple[float | None, ...]


def chance(count: int, dimension: int, values: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the energy of a random update in ``count`` of ``dimension`` directions.

    The random update has the given singular values and Haar-distributed singular vectors, so it has the same rank and
    norm. One uniformly random unit vector puts a Beta(k/2, (n-k)/2) share into k of n directions; r orthonormal ones
    with weights w_i = s_i^2 / |s|^2 are exchangeable with a fixed total over a whole basis, hence
    mean = k / n and variance = 2 k (n - k) / (n^2 (n + 2)) * (n sum w_i^2 - 1) / (n - 1).

    >>> chance(10, 100, torch.ones(100))
    (0.1, 0.0)
    """
    k, n = count, dimension
    weights = values**2 / (values**2).sum()
    if n == 1:
        return k / n, 0.0
    spread = max(0.0, float((n * (weights**2).sum() - 1).item()) / (n - 1))
    if spread < 1e-12:
        spread = 0.0
    return k / n, math.sqrt(2 * k * (n - k) / (n * n * (n + 2)) * spread)


def side_energy(side: Side, base: BaseSpectrum, update: Directions, coefficients: Tensor, weight: Tensor) -> SideEnergy:
    """The energies of one side.

    Args:
        side: which singular vectors.
        base: decomposition of W.
        update: decomposition of dW, of rank at least 1.
        coefficients: ``[k, r]`` inner products of W's and dW's singular vectors (:meth:`BaseSpectrum.coefficients`).
        weight: W ``[out, in]``, float64.
    """
    vectors = update.right if side == "right" else update.left
    n, p, kept = vectors.shape[0], base.size, base.kept
    total = float((update.values**2).sum().item())
    energy = ((coefficients * update.values) ** 2).sum(1) / total
    running = torch.cat([energy.new_zeros(1), energy.cumsum(0)])

    def region(start: int, stop: int) -> Region | None:
        if stop > kept or stop <= start:
            return None
        share = float(energy[start:stop].sum().item())  # summed afresh: differences of the running sum would cancel
        return Region(stop - start, share, *chance(stop - start, n, update.values))

    bins = min(BINS, p)
    edges = [round(i * p / bins) for i in range(bins + 1)]
    ranks = [base.rank_holding(share) for share in SHARES]
    moved = weight @ vectors if side == "right" else weight.T @ vectors
    return SideEnergy(
        side=side,
        dimension=n,
        bins=tuple(region(a, b) for a, b in itertools.pairwise(edges)),
        outside=max(0.0, 1 - float(running[-1].item())),
        shares=tuple(None if k is None else region(0, k) for k in ranks),
        top_rank=region(0, min(update.rank, p)),
        bottom_rank=region(p - min(update.rank, p), p),
        alignment=n * float(((moved * update.values) ** 2).sum().item()) / (base.norm**2 * total),
        curve=tuple(_at(running, fraction * p) for fraction in GRID),
    )


def _at(running: Tensor, index: float) -> float | None:
    """The running sum at a fractional index, by linear interpolation."""
    low = math.floor(index + 1e-9)
    rest = max(0.0, index - low)
    if low + (rest > 1e-9) >= len(running):
        return None
    start = float(running[low].item())
    return start if rest <= 1e-9 else start + rest * (float(running[low + 1].item()) - start)

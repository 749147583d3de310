"""What a spectral analysis measured: a record a matrix, a vector, a run and a pair of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_lite.analysis._spectrum_energy import GRID, Region, SideEnergy
from rlvr_lite.analysis._spectrum_principal import PrincipalChange

__all__ = ["Average", "MatrixSpectrum", "Overlap", "RunSpectrum", "VectorChange", "mean"]

_SIGNIFICANT = 3.0


@dataclass(frozen=True)
class MatrixSpectrum:
    """One adapted matrix of one run.

    Attributes:
        name: of the module.
        shape: (out, in).
        digest: of the base weight.
        rank: numerical rank of dW; 0 for a matrix that did not move, whose other measures are ``None``.
        singular_values: the largest 64 of dW.
        effective_rank: exp of the entropy of the singular values.
        stable_rank: |dW|_F^2 / |dW|_2^2.
        relative_norm: |dW|_F / |W|_F.
        right: energy over W's right singular vectors (input directions).
        left: energy over W's left singular vectors (output directions).
        principal: what happened to the leading subspace of W.
        base_error: largest relative error of W's singular values; 0 where the decomposition is exact.
    """

    name: str
    shape: tuple[int, int]
    digest: str
    rank: int
    singular_values: tuple[float, ...]
    effective_rank: float
    stable_rank: float
    relative_norm: float
    right: SideEnergy | None = None
    left: SideEnergy | None = None
    principal: PrincipalChange | None = None
    base_error: float = 0.0


@dataclass(frozen=True)
class VectorChange:
    """One trained vector, such as a norm's weight: it has no singular vectors, so sizes are measured instead.

    Attributes:
        name: of the parameter.
        size: number of entries.
        relative_norm: |dw| / |w|.
        largest: largest |dw_i|.
        moved: share of entries that differ from the base.
    """

    name: str
    size: int
    relative_norm: float
    largest: float
    moved: float


@dataclass(frozen=True)
class Average:
    """A kind of region over all matrices of a run.

    Attributes:
        energy: mean share of the update's energy.
        ratio: that over the mean share of random updates.
        deviation: standard deviation of ``ratio`` for random updates.
    """

    energy: float
    ratio: float
    deviation: float

    @property
    def by_chance(self) -> bool:
        """Whether a random update would lie as far from 1 (within three standard deviations)."""
        return abs(self.ratio - 1) <= _SIGNIFICANT * self.deviation + 1e-9

    @classmethod
    def of(cls, regions: Sequence[Region | None]) -> Average | None:
        """The average over matrices; ``None`` if a matrix lacks the region."""
        found = [region for region in regions if region is not None]
        if not found or len(found) < len(regions):
            return None
        expected = sum(region.expected for region in found)
        energy = sum(region.energy for region in found)
        spread = math.sqrt(sum(region.deviation**2 for region in found))
        return cls(energy / len(found), energy / expected, spread / expected)


@dataclass(frozen=True)
class RunSpectrum:
    """All updates of one run.

    Attributes:
        label: of the run, usually its method.
        matrices: the adapted matrices, in the model's order.
        vectors: trained vectors, in the model's order.
    """

    label: str
    matrices: tuple[MatrixSpectrum, ...]
    vectors: tuple[VectorChange, ...] = ()

    @property
    def moved(self) -> tuple[MatrixSpectrum, ...]:
        """The matrices with an update that is not zero."""
        return tuple(matrix for matrix in self.matrices if matrix.rank)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpectrum:
        """The inverse of ``dataclasses.asdict``."""
        return cls(
            label=values["label"],
            matrices=tuple(_matrix(matrix) for matrix in values["matrices"]),
            vectors=tuple(VectorChange(**vector) for vector in values["vectors"]),
        )

    def sides(self, side: str) -> list[SideEnergy]:
        """The energies of one side, a moved matrix each."""
        return [energy for energy in (getattr(matrix, side) for matrix in self.moved) if energy is not None]

    def average(self, side: str, region: Callable[[SideEnergy], Region | None]) -> Average | None:
        """One region of one side over all moved matrices."""
        return Average.of([region(energy) for energy in self.sides(side)])

    def bins(self, side: str) -> list[Average | None]:
        """The averaged bins, largest singular values first; matrices too small to have as many as the others are skipped."""
        sides = self.sides(side)
        count = max((len(energy.bins) for energy in sides), default=0)
        return [Average.of([energy.bins[i] for energy in sides if len(energy.bins) == count]) for i in range(count)]

    def curve(self, side: str) -> tuple[list[float | None], float]:
        """Mean cumulative energy on the grid of index fractions, and the slope that random updates have."""
        sides = self.sides(side)
        columns = zip(*(energy.curve for energy in sides), strict=True)
        average = [None if None in column else mean(column) for column in columns]
        sizes = [min(matrix.shape) for matrix in self.moved]
        slopes = [size / energy.dimension for size, energy in zip(sizes, sides, strict=True)]
        return average or [None] * len(GRID), mean(slopes)


@dataclass(frozen=True)
class Overlap:
    """Two runs' updates of the same matrices, averaged; see :func:`overlap`."""

    first: str
    second: str
    matrices: int
    cosine: float
    right: float
    left: float
    right_by_chance: float
    left_by_chance: float


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return math.fsum(values) / len(values) if values else 0.0


def _region(values: Mapping[str, Any] | None) -> Region | None:
    return None if values is None else Region(**values)


def _side(values: Mapping[str, Any] | None) -> SideEnergy | None:
    if values is None:
        return None
    regions = {name: tuple(_region(item) for item in values[name]) for name in ("bins", "shares")}
    single = {name: _region(values[name]) for name in ("top_rank", "bottom_rank")}
    return SideEnergy(**{**values, **regions, **single, "curve": tuple(values["curve"])})


def _matrix(values: Mapping[str, Any]) -> MatrixSpectrum:
    return MatrixSpectrum(
        **{
            **values,
            "shape": tuple(values["shape"]),
            "singular_values": tuple(values["singular_values"]),
            "right": _side(values["right"]),
            "left": _side(values["left"]),
            "principal": None if values["principal"] is None else PrincipalChange(**values["principal"]),
        }
    )

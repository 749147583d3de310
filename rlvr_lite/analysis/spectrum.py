"""Where does an update go? Spectral analysis of what an adapter did to its base weights.

For each matrix, dW = W' - W is set against the singular vectors of the frozen W: how much of its energy lies in the
leading or trailing ones, beside a random update of the same rank and norm; how far it turned the leading subspace; how
much two methods' updates have in common. Low-rank updates are never multiplied out. All in float64.

>>> import torch
>>> from rlvr_lite.analysis.spectrum import Update, compare_updates
>>> weight = torch.diag(torch.arange(40.0, 0.0, -1.0))
>>> principal = torch.eye(40)[:, :4]  # an update inside the four leading directions
>>> found = compare_updates({"top": [Update("layers.0.q_proj", weight, (principal, principal.T, 0.5))]})
>>> print(found.words()[0])
top, input directions: 10.00x random in the top 10 %, 0.00x random in the bottom 10 %

See arXiv 2512.23165 (off-principal updates), 2511.08567 (rotation, drift) and 2410.21228 (intruder dimensions).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlvr_lite.analysis._spectrum_base import BaseSpectrum, cached_decompose, decompose, weight_digest
from rlvr_lite.analysis._spectrum_energy import GRID, SHARES, Region, SideEnergy, chance, side_energy
from rlvr_lite.analysis._spectrum_live import CollapseAlarm, ProbeBase, SpectrumProbe, probe_base
from rlvr_lite.analysis._spectrum_principal import PrincipalChange, principal_change
from rlvr_lite.analysis._spectrum_records import Average, MatrixSpectrum, Overlap, RunSpectrum, VectorChange
from rlvr_lite.analysis._spectrum_report import Spectrum
from rlvr_lite.analysis._spectrum_update import Directions, Update, directions, effective_rank, overlap, stable_rank
from rlvr_lite.errors import UserError

__all__ = [
    "GRID",
    "SHARES",
    "Average",
    "BaseSpectrum",
    "CollapseAlarm",
    "Directions",
    "MatrixSpectrum",
    "Overlap",
    "PrincipalChange",
    "ProbeBase",
    "Region",
    "RunSpectrum",
    "SideEnergy",
    "Spectrum",
    "SpectrumProbe",
    "Update",
    "VectorChange",
    "cached_decompose",
    "chance",
    "compare_updates",
    "decompose",
    "directions",
    "effective_rank",
    "measure_matrix",
    "overlap",
    "principal_change",
    "probe_base",
    "side_energy",
    "stable_rank",
    "weight_digest",
]

_VALUES_KEPT = 64


def compare_updates(
    runs: Mapping[str, Iterable[Update]],
    *,
    cache: Path | None = None,
    rank: int | None = None,
    trajectories: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Spectrum:
    """Measure the updates of one or more runs on the same base, and what they have in common.

    Matrices are taken one at a time over all runs, so that each base weight is decomposed once and few are in memory.

    Args:
        runs: by label, what training changed (``rlvr_lite.methods.updates(model)``).
        cache: directory that keeps the base's decompositions by the hash of the weight.
        rank: singular directions of the base to compute; ``None`` takes all where the shorter side is at most 2048,
            and otherwise the first fifth by a randomised method with an error bound.
        trajectories: by label, rows of a run's metrics with the columns of :class:`SpectrumProbe`, for the plot.

    Raises:
        UserError: no run, a run without updates or whose updates are all zero, a tensor that is not finite (named), or
            runs on different bases.
    """
    if not runs:
        raise UserError("a spectrum needs at least one run")
    grouped: dict[str, dict[str, Update]] = {}
    for label, updates in runs.items():
        count = 0
        for update in updates:
            if label in grouped.setdefault(update.name, {}):
                raise UserError(f"run {label!r} gives two updates of {update.name}: a module has one")
            grouped[update.name][label] = update
            count += 1
        if not count:
            raise UserError(
                f"run {label!r} has no adapter and no trained weight, so no update: train it, or leave it out"
            )
    matrices: dict[str, list[MatrixSpectrum]] = {label: [] for label in runs}
    vectors: dict[str, list[VectorChange]] = {label: [] for label in runs}
    pairs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for name, by_run in grouped.items():
        base: BaseSpectrum | None = None
        moved: dict[str, Directions] = {}
        for label, update in by_run.items():
            weight = update.weight()
            if weight.ndim == 1:
                vectors[label].append(_vector(update, weight))
                continue
            if base is None:
                base, owner = _decompose(name, weight, cache, rank), label
            elif weight.shape != base.shape or weight_digest(weight) != base.digest:
                raise UserError(
                    f"runs {owner!r} and {label!r} stand on different bases ({name} differs): compare runs of one base, "
                    "revision and precision"
                )
            found = directions(update)
            matrices[label].append(measure_matrix(name, base, found, weight.to(torch.float64)))
            if found.rank:
                moved[label] = found
        for first, second in itertools.combinations(moved, 2):
            pairs.setdefault((first, second), []).append(overlap(moved[first], moved[second]))
    for label in runs:
        if not any(m.rank for m in matrices[label]) and not any(v.largest for v in vectors[label]):
            raise UserError(
                f"the update of run {label!r} is zero everywhere: it was not trained, or its adapter not loaded"
            )
    return Spectrum(
        runs=tuple(RunSpectrum(label, tuple(matrices[label]), tuple(vectors[label])) for label in runs),
        overlaps=tuple(
            Overlap(
                first, second, len(found), **{key: math.fsum(f[key] for f in found) / len(found) for key in found[0]}
            )
            for (first, second), found in pairs.items()
        ),
        trajectories={label: tuple(dict(row) for row in rows) for label, rows in (trajectories or {}).items()},
    )


def _decompose(name: str, weight: Tensor, cache: Path | None, rank: int | None) -> BaseSpectrum:
    try:
        return cached_decompose(weight, cache, rank=rank)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def measure_matrix(name: str, base: BaseSpectrum, update: Directions, weight: Tensor) -> MatrixSpectrum:
    """All measures of one matrix.

    Args:
        name: of the module.
        base: decomposition of W.
        update: decomposition of dW.
        weight: W ``[out, in]``, float64.

    Raises:
        UserError: the update has another shape than the weight.
    """
    if (update.left.shape[0], update.right.shape[0]) != base.shape:
        shape = (update.left.shape[0], update.right.shape[0])
        raise UserError(f"{name}: an update of shape {shape} does not fit its base weight of shape {base.shape}")
    update = Directions(*(part.to(weight.device) for part in (update.left, update.values, update.right)))
    values = update.values
    facts: dict[str, Any] = {
        "name": name,
        "shape": base.shape,
        "digest": base.digest,
        "rank": update.rank,
        "singular_values": tuple(values[:_VALUES_KEPT].tolist()),
        "effective_rank": effective_rank(values),
        "stable_rank": stable_rank(values),
        "relative_norm": update.norm / base.norm,
        "base_error": base.error,
    }
    if not update.rank:
        return MatrixSpectrum(**facts)
    left = base.coefficients("left", update.left, weight)
    right = base.coefficients("right", update.right, weight)
    return MatrixSpectrum(
        **facts,
        right=side_energy("right", base, update, right, weight),
        left=side_energy("left", base, update, left, weight),
        principal=principal_change(base, update, left, right, weight),
    )


def _vector(update: Update, weight: Tensor) -> VectorChange:
    change, exact = update.delta(), weight.to(torch.float64)
    if change.shape != exact.shape:
        raise UserError(
            f"{update.name}: an update of shape {tuple(change.shape)} does not fit its base {tuple(exact.shape)}"
        )
    norm = float(exact.norm().item())
    return VectorChange(
        name=update.name,
        size=exact.numel(),
        relative_norm=float(change.norm().item()) / norm if norm else 0.0,
        largest=float(change.abs().max().item()),
        moved=float((change != 0).double().mean().item()),
    )

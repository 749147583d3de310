"""The result of a spectral analysis: tables and sentences, JSON and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rlvr_lite.analysis._spectrum_energy import SHARES, SideEnergy
from rlvr_lite.analysis._spectrum_records import Average, MatrixSpectrum, Overlap, RunSpectrum, mean
from rlvr_lite.errors import UserError, as_html, printable, unknown_name
from rlvr_lite.table import Table

if TYPE_CHECKING:
    from rlvr_lite.figure import Figure

__all__ = ["Spectrum"]

PlotKind = Literal["all", "bins", "cumulative", "layers", "trajectories"]
_SIDES = (("right", "input"), ("left", "output"))
_SHORT = (("right", "in"), ("left", "out"))
_ENDS = ((0, "top"), (-1, "bottom"))


@dataclass(frozen=True)
class Spectrum:
    """Where one or more runs' updates went; prints itself as sentences and a table, plots, and goes to JSON and back.

    Attributes:
        runs: in the order given.
        overlaps: a pair of runs each.
        trajectories: by run, rows of metrics with the ``spectrum/`` columns of a live probe and their ``step``.
    """

    runs: tuple[RunSpectrum, ...]
    overlaps: tuple[Overlap, ...] = ()
    trajectories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def run(self, label: str) -> RunSpectrum:
        """The run of that label.

        Raises:
            UserError: there is none.
        """
        found = {run.label: run for run in self.runs}
        if label not in found:
            raise unknown_name("run", label, found)
        return found[label]

    def words(self) -> list[str]:
        """The findings, a sentence a run and side."""
        lines: list[str] = []
        for run in self.runs:
            if not run.matrices:
                lines.append(_vector_words(run))
                continue
            for side, plain in _SIDES:
                parts = []
                for end, name in _ENDS:
                    average = _bin(run, side, end)
                    if average is not None:
                        parts.append(f"{average.ratio:.2f}x random in the {name} 10 %{_chance(average)}")
                lines.append(f"{run.label}, {plain} directions: {', '.join(parts) or 'no bin was reached'}")
            still = len(run.matrices) - len(run.moved)
            if still:
                lines.append(f"{run.label}: {still} of {len(run.matrices)} matrices did not move and are left out")
        return lines

    def table(self) -> Table:
        """A row a run: ratios to a random update of the same rank and norm, averaged over the matrices."""
        return Table.of([_row(run) for run in self.runs], "Where the update went", self.note())

    def note(self) -> str:
        """What the columns mean, and how exact the base's decomposition is."""
        if not any(run.matrices for run in self.runs):
            return "relative norm: |dw| / |w|, averaged over the vectors."
        error = max((m.base_error for run in self.runs for m in run.matrices), default=0.0)
        exact = "exact" if error == 0 else f"randomised, singular values within {error:.1e} of the largest"
        return (
            "top/bottom: energy in the first/last tenth of the base's singular directions over that of a random "
            f"update; in: right, out: left singular vectors; base decomposition {exact}. A low-rank A that keeps its "
            "random start makes the input side look random by construction: read the output side first."
        )

    def captured(self) -> Table:
        """A row a run and side: energy in the leading subspaces that hold a share of W's energy, and over random."""
        rows = [_captured(run, side, short) for run in self.runs if run.moved for side, short in _SHORT]
        note = "top r, bottom r: as many directions as the update has rank; alignment: energy weighed by sigma^2, 1 is random"
        return Table.of(rows, "Energy captured by the leading directions", note)

    def layers(self, label: str) -> Table:
        """A row an adapted matrix of one run."""
        return Table.of([_matrix_row(m) for m in self.run(label).matrices], f"{label}: layer by layer")

    def overlap_table(self) -> Table:
        """A row a pair of runs: cosine of the updates and shared subspaces over chance."""
        rows = [
            {
                "runs": f"{o.first} / {o.second}",
                "matrices": o.matrices,
                "cosine": o.cosine,
                "in: shared": o.right,
                "in: by chance": o.right_by_chance,
                "out: shared": o.left,
                "out: by chance": o.left_by_chance,
            }
            for o in self.overlaps
        ]
        return Table.of(rows, "Overlap of the updates", "shared: mean squared cosine between leading subspaces")

    def plot(self, kind: PlotKind = "all") -> Figure:
        """A figure: energy by bin, cumulative energy, layer-by-module map, trajectories, or all there is data for."""
        from rlvr_lite.analysis import _spectrum_figures

        return _spectrum_figures.draw(self, kind)

    def __str__(self) -> str:
        parts = ["\n".join(self.words()), str(self.table())]
        return printable("\n\n".join(parts + ([str(self.overlap_table())] if self.overlaps else [])))

    def __repr__(self) -> str:
        return f"Spectrum({', '.join(run.label for run in self.runs)})"

    def _repr_html_(self) -> str:
        words = "".join(f"<li>{as_html(line)}</li>" for line in self.words())
        tables = self.table()._repr_html_() + (self.overlap_table()._repr_html_() if self.overlaps else "")
        if not any(run.moved for run in self.runs):
            return f"<ul>{words}</ul>{tables}"
        return f"<ul>{words}</ul>{tables}{self.plot().to_html('Energy by tenth of the singular directions')}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; the inverse of :meth:`from_dict`."""
        return {
            "runs": [dataclasses.asdict(run) for run in self.runs],
            "overlaps": [dataclasses.asdict(pair) for pair in self.overlaps],
            "trajectories": {label: [dict(row) for row in rows] for label, rows in self.trajectories.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spectrum:
        """Read what :meth:`to_dict` wrote.

        Raises:
            UserError: it is something else.
        """
        try:
            return cls(
                runs=tuple(RunSpectrum.from_dict(run) for run in values["runs"]),
                overlaps=tuple(Overlap(**pair) for pair in values["overlaps"]),
                trajectories={label: tuple(rows) for label, rows in values["trajectories"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a spectrum: {error}; write it again with spectrum.to_dict()") from error


def _bin(run: RunSpectrum, side: str, end: int) -> Average | None:
    return run.bins(side)[end]


def _chance(average: Average) -> str:
    return " (as by chance)" if average.by_chance else ""


def _vector_words(run: RunSpectrum) -> str:
    largest = max((vector.largest for vector in run.vectors), default=0.0)
    return (
        f"{run.label} trains {len(run.vectors)} vectors and no matrix, so there are no singular directions; measured "
        f"instead: relative norm {mean([v.relative_norm for v in run.vectors]):.2g}, largest change {largest:.2g}, "
        f"{mean([v.moved for v in run.vectors]):.0%} of the entries moved"
    )


def _row(run: RunSpectrum) -> dict[str, Any]:
    moved = run.moved
    if not moved:
        return {
            "run": run.label,
            "vectors": len(run.vectors),
            "relative norm": mean([v.relative_norm for v in run.vectors]),
        }
    changes = [m.principal for m in moved if m.principal is not None]
    row: dict[str, Any] = {
        "run": run.label,
        "matrices": len(moved),
        "effective rank": mean([m.effective_rank for m in moved]),
        "relative norm": mean([m.relative_norm for m in moved]),
    }
    for side, short in _SHORT:
        for end, name in _ENDS:
            average = _bin(run, side, end)
            row[f"{short}: {name} 10 %"] = average.ratio if average else None
    row["rotation (deg)"] = mean([max(c.rotation_right, c.rotation_left) for c in changes])
    row["drift"] = mean([c.drift for c in changes])
    row["intruders"] = mean([c.intruders for c in changes])
    return row | ({"vectors": len(run.vectors)} if run.vectors else {})


def _captured(run: RunSpectrum, side: str, short: str) -> dict[str, Any]:
    row: dict[str, Any] = {"run": run.label, "side": short}
    for i, share in enumerate(SHARES):
        row[f"{share:.0%} of W"] = _ratio(run.average(side, lambda energy, i=i: energy.shares[i]))  # type: ignore[misc]
    row["top r"] = _ratio(run.average(side, lambda energy: energy.top_rank))
    row["bottom r"] = _ratio(run.average(side, lambda energy: energy.bottom_rank))
    row["outside"] = f"{mean([energy.outside for energy in run.sides(side)]):.1%}"
    row["alignment"] = mean([energy.alignment for energy in run.sides(side)])
    return row


def _ratio(average: Average | None) -> str | None:
    return f"{average.energy:.1%} ({average.ratio:.2f}x)" if average else None


def _matrix_row(matrix: MatrixSpectrum) -> dict[str, Any]:
    row: dict[str, Any] = {
        "matrix": matrix.name,
        "shape": f"{matrix.shape[0]}x{matrix.shape[1]}",
        "effective rank": matrix.effective_rank,
        "stable rank": matrix.stable_rank,
        "relative norm": matrix.relative_norm,
    }
    for side, short in _SHORT:
        energy: SideEnergy | None = getattr(matrix, side)
        for end, name in _ENDS:
            region = energy.bins[end] if energy else None
            row[f"{short}: {name} 10 %"] = region.ratio if region else None
    change = matrix.principal
    row["rotation (deg)"] = max(change.rotation_right, change.rotation_left) if change else None
    row["intruders"] = change.intruders if change else None
    return row

"""Pictures of a spectral analysis."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

from rlvr_lite.analysis._spectrum_energy import GRID
from rlvr_lite.config import LINEAR_LAYERS
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.figure import Figure, plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rlvr_lite.analysis._spectrum_records import RunSpectrum
    from rlvr_lite.analysis._spectrum_report import Spectrum

__all__ = ["draw"]

_SIDES = (("right", "input (right) directions"), ("left", "output (left) directions"))
_LEAST = 1 / 16  # of an energy over random that a bar shows
_TICKS = (
    (1 / 16, "≤ 1/16"),
    (1 / 4, "1/4"),
    (1 / 2, "1/2"),
    (1, "1"),
    (2, "2"),
    (4, "4"),
    (8, "8"),
    (16, "16"),
    (32, "32"),
)


def draw(spectrum: Spectrum, kind: str) -> Figure:
    """A figure of the plots that there is data for, or of one.

    Raises:
        UserError: an unknown kind, or nothing to draw.
    """
    painters: dict[str, tuple[bool, Callable[[Any, Spectrum], None]]] = {
        "bins": (any(run.moved for run in spectrum.runs), _bins),
        "cumulative": (any(run.moved for run in spectrum.runs), _cumulative),
        "layers": (any(run.moved for run in spectrum.runs), _layers),
        "trajectories": (any(spectrum.trajectories.values()), _trajectories),
    }
    if kind != "all" and kind not in painters:
        raise unknown_name("plot", kind, ["all", *painters])
    chosen = [name for name, (there, _) in painters.items() if there and kind in ("all", name)]
    if not chosen:
        raise UserError(f"there is nothing to draw as {kind!r}: vectors have no singular directions, and rows none")
    runs = [run for run in spectrum.runs if run.moved]
    heights = [_map_height(runs) if name == "layers" else 3.2 for name in chosen]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(chosen), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, name in zip(parts, chosen, strict=True):
        painters[name][1](part, spectrum)
    return figure


def _runs(spectrum: Spectrum) -> list[RunSpectrum]:
    return [run for run in spectrum.runs if run.moved]


def _ink() -> Any:
    """The colour of lines that are no run's, on whatever background the style has."""
    return matplotlib.rcParams["axes.labelcolor"]


def _colours(count: int) -> list[Any]:
    """As many colours as runs: the style's own, or a continuous scale where those do not suffice."""
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key().get("color", ["C0"])
    return cycle[:count] if count <= len(cycle) else list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _legend(part: Any, axes: list[Axes]) -> None:
    """One legend beside the axes, where it hides nothing."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    part.legend(found.values(), found.keys(), loc="outside right upper", fontsize=8, frameon=False)


def _bins(part: Any, spectrum: Spectrum) -> None:
    """Bars from 1 (random) up or down, on a scale on which half and double are as long."""
    axes: list[Axes] = list(part.subplots(1, 2, sharey=True))
    runs = _runs(spectrum)
    colours, width, highest = _colours(len(runs)), 0.8 / len(runs), 2.0
    for axis, (side, title) in zip(axes, _SIDES, strict=True):
        for i, run in enumerate(runs):
            bins = run.bins(side)
            places = np.arange(len(bins)) + (i - (len(runs) - 1) / 2) * width
            ratios = np.array([b.ratio if b else np.nan for b in bins])
            spread = np.array([3 * b.deviation if b else np.nan for b in bins])
            axis.bar(places, ratios - 1, width, bottom=1, label=plot_label(run.label), color=colours[i])
            low, high = np.maximum(1 - spread, _LEAST), 1 + spread
            axis.vlines(places, low, high, _ink(), linewidth=1, label="random ± 3 sd" if i == 0 else "")
            highest = max(highest, float(np.nanmax(ratios, initial=1.0)))
        axis.axhline(1, color=_ink(), linewidth=1)
        axis.set(title=title, xlabel="tenth of the base's singular directions, largest first", yscale="log")
        axis.set_xticks(range(10), [str(i + 1) for i in range(10)])
    axes[0].set_ylim(_LEAST, highest * 1.3)
    axes[0].set_yticks(*zip(*[tick for tick in _TICKS if tick[0] <= highest * 1.3], strict=True))
    axes[0].minorticks_off()
    axes[0].set_ylabel("energy / random")
    _legend(part, axes)


def _cumulative(part: Any, spectrum: Spectrum) -> None:
    axes: list[Axes] = list(part.subplots(1, 2, sharey=True))
    runs = _runs(spectrum)
    colours = _colours(len(runs))
    for axis, (side, title) in zip(axes, _SIDES, strict=True):
        for i, run in enumerate(runs):
            curve, slope = run.curve(side)
            axis.plot(
                GRID,
                [np.nan if value is None else value for value in curve],
                label=plot_label(run.label),
                color=colours[i],
            )
            axis.plot((0, 1), (0, slope), color=_ink(), linestyle="--", linewidth=1, label="random" if i == 0 else None)
        axis.set(title=title, xlabel="fraction of singular directions, largest first", xlim=(0, 1), ylim=(0, 1.02))
    axes[0].set_ylabel("cumulative energy")
    _legend(part, axes)


def _place(name: str) -> tuple[int, str]:
    """(layer, module) of a module's name; layer -1 if it has no number."""
    numbers = re.findall(r"\.(\d+)\.", f".{name}.")
    return (int(numbers[0]) if numbers else -1, name.rsplit(".", 1)[-1])


def _map_height(runs: list[RunSpectrum]) -> float:
    layers = {_place(matrix.name)[0] for run in runs for matrix in run.moved}
    return 1.2 + max(1.2, 0.5 + 0.09 * len(layers)) * len(runs)


def _layers(part: Any, spectrum: Spectrum) -> None:
    runs = _runs(spectrum)
    grid = part.subplots(len(runs), 2, squeeze=False)
    found = {_place(matrix.name) for run in runs for matrix in run.moved}
    layers = sorted({layer for layer, _ in found})
    known = [name for name in LINEAR_LAYERS if any(module == name for _, module in found)]
    modules = known + sorted({module for _, module in found} - set(known))
    image = None
    for row, run in zip(grid, runs, strict=True):
        for axis, (side, title) in zip(row, _SIDES, strict=True):
            cells = np.full((len(layers), len(modules)), np.nan)
            for matrix in run.moved:
                energy = getattr(matrix, side)
                layer, module = _place(matrix.name)
                if energy and energy.bins[0]:
                    cells[layers.index(layer), modules.index(module)] = np.log2(max(energy.bins[0].ratio, 2**-3))
            image = axis.imshow(cells, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
            axis.set_title(f"{plot_label(run.label)}: top 10 % of {title}", fontsize=9)
            axis.set_xticks(range(len(modules)), modules if run is runs[-1] else [], fontsize=8, rotation=30)
            step = max(1, len(layers) // 12)
            axis.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]], fontsize=8)
        row[0].set_ylabel("layer")
    place = {"location": "top", "aspect": 50, "shrink": 0.6, "pad": 0.2 / _map_height(runs)}
    bar = part.colorbar(image, ax=list(grid.flat), ticks=range(-3, 4), **place)
    bar.set_label("energy / random", fontsize=8)
    bar.ax.set_xticklabels(["≤ 1/8", "1/4", "1/2", "1", "2", "4", "≥ 8"], fontsize=8)


def _trajectories(part: Any, spectrum: Spectrum) -> None:
    columns = (
        ("spectrum/top_right", "top 10 %, input / random"),
        ("spectrum/top_left", "top 10 %, output / random"),
        ("spectrum/relative_norm", "|dW| / |W|"),
    )
    axes: list[Axes] = list(part.subplots(1, len(columns)))
    labels = [run.label for run in _runs(spectrum)]
    colours = dict(zip(labels, _colours(len(labels)), strict=True))  # those of the other plots
    for axis, (key, title) in zip(axes, columns, strict=True):
        for label, rows in spectrum.trajectories.items():
            points = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
            if points:
                axis.plot(
                    *zip(*points, strict=True), marker=".", label=plot_label(label), color=colours.get(label, _ink())
                )
        if key != "spectrum/relative_norm":
            axis.axhline(1, color=_ink(), linestyle="--", linewidth=1, label="random")
        axis.set(title=title, xlabel="step")
    _legend(part, axes)

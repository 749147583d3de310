"""Pictures of a spectral analysis."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from rlvr_lite.analysis._spectrum_energy import GRID
from rlvr_lite.config import LINEAR_LAYERS
from rlvr_lite.errors import UserError, unknown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rlvr_lite.analysis._spectrum_records import RunSpectrum
    from rlvr_lite.analysis._spectrum_report import Spectrum

__all__ = ["draw"]

_SIDES = (("right", "input (right) directions"), ("left", "output (left) directions"))


def draw(spectrum: Spectrum, kind: str) -> Figure:
    """A closed pyplot figure: a notebook shows it once, as the value of its cell.

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
    figure = plt.figure(figsize=(10, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(chosen), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, name in zip(parts, chosen, strict=True):
        painters[name][1](part, spectrum)
    plt.close(figure)
    return figure


def _runs(spectrum: Spectrum) -> list[RunSpectrum]:
    return [run for run in spectrum.runs if run.moved]


def _bins(part: Any, spectrum: Spectrum) -> None:
    axes: list[Axes] = list(part.subplots(1, 2, sharey=True))
    runs = _runs(spectrum)
    width = 0.8 / len(runs)
    for axis, (side, title) in zip(axes, _SIDES, strict=True):
        for i, run in enumerate(runs):
            bins = run.bins(side)
            places = np.arange(len(bins)) + (i - (len(runs) - 1) / 2) * width
            heights = [b.ratio if b else np.nan for b in bins]
            spread = [3 * b.deviation if b else np.nan for b in bins]
            axis.bar(places, heights, width, label=run.label, color=f"C{i}")
            low, high = 1 - np.array(spread), 1 + np.array(spread)
            axis.vlines(places, low, high, "0.35", label="random ± 3 sd" if i == 0 else "")
        axis.axhline(1, color="0.35", linewidth=1)
        axis.set(title=title, xlabel="tenth of the base's singular directions, largest first")
        axis.set_xticks(range(10), [str(i + 1) for i in range(10)])
    axes[0].set_ylabel("energy / random")
    axes[1].legend(fontsize=8)


def _cumulative(part: Any, spectrum: Spectrum) -> None:
    axes: list[Axes] = list(part.subplots(1, 2, sharey=True))
    for axis, (side, title) in zip(axes, _SIDES, strict=True):
        for i, run in enumerate(_runs(spectrum)):
            curve, slope = run.curve(side)
            axis.plot(GRID, [np.nan if value is None else value for value in curve], label=run.label, color=f"C{i}")
            axis.plot((0, 1), (0, slope), color="0.35", linestyle="--", linewidth=1, label="random" if i == 0 else None)
        axis.set(title=title, xlabel="fraction of singular directions, largest first", xlim=(0, 1), ylim=(0, 1.02))
    axes[0].set_ylabel("cumulative energy")
    axes[1].legend(fontsize=8, loc="lower right")


def _place(name: str) -> tuple[int, str]:
    """(layer, module) of a module's name; layer -1 if it has no number."""
    numbers = re.findall(r"\.(\d+)\.", f".{name}.")
    return (int(numbers[0]) if numbers else -1, name.rsplit(".", 1)[-1])


def _map_height(runs: list[RunSpectrum]) -> float:
    layers = {_place(matrix.name)[0] for run in runs for matrix in run.moved}
    return max(2.2, 0.8 + 0.16 * len(layers)) * len(runs)


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
            axis.set_title(f"{run.label}: top 10 % of {title}", fontsize=9)
            axis.set_xticks(range(len(modules)), modules, fontsize=8, rotation=30)
            step = max(1, len(layers) // 12)
            axis.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]], fontsize=8)
        row[0].set_ylabel("layer")
    bar = part.colorbar(image, ax=list(grid.flat), ticks=range(-3, 4), label="energy / random")
    bar.ax.set_yticklabels(["≤ ⅛", "¼", "½", "1", "2", "4", "≥ 8"])


def _trajectories(part: Any, spectrum: Spectrum) -> None:
    columns = (
        ("spectrum/top_right", "top 10 %, input / random"),
        ("spectrum/top_left", "top 10 %, output / random"),
        ("spectrum/relative_norm", "|dW| / |W|"),
    )
    axes: list[Axes] = list(part.subplots(1, len(columns)))
    for axis, (key, title) in zip(axes, columns, strict=True):
        for i, (label, rows) in enumerate(spectrum.trajectories.items()):
            points = [(row["step"], row[key]) for row in rows if key in row and "step" in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=label, color=f"C{i}")
        if key != "spectrum/relative_norm":
            axis.axhline(1, color="0.35", linestyle="--", linewidth=1)
        axis.set(title=title, xlabel="step")
    axes[-1].legend(fontsize=8)

"""Pictures of a study: what each row reached, at what cost, and how it got there.

Each is narrow enough for a phone, tells its rows by colour and mark (Okabe and Ito's colours), and raises ``UserError``
where there is nothing to draw yet.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from rlvr_lite import bases, methods
from rlvr_lite.analysis.replication import seed_problem_interval
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.figure import Figure, plot_label
from rlvr_lite.study._labels import LABEL, name_points, room_for
from rlvr_lite.study._row import fine_scores
from rlvr_lite.table import Table
from rlvr_lite.training import COLOURS, smooth

if TYPE_CHECKING:
    from rlvr_lite.analysis.statistics import Interval
    from rlvr_lite.study._study import Row, Study

__all__ = [
    "accuracy_against_share",
    "base_parameters",
    "forest",
    "learning_rate_curves",
    "pareto",
    "pareto_front",
    "reward_areas",
    "reward_curves",
]

_WIDTH = 5.0  # inches: on a phone three quarters of that, and still legible
_ONE_PANEL = 6  # rows whose curves one panel holds
_INK, _FAINT = "#222222", "#8a8a8a"
_REFERENCE = ("#000000", "o")
#: Six colours (white swallows the yellow) and seven marks: 42 rows before a pair comes again.
_HUES = tuple(colour for colour in COLOURS if colour not in ("#000000", "#F0E442"))
_MARKS = ("s", "^", "D", "v", "P", "X", "<")
_VERDICTS = {
    "better": ("^", "#009E73"),
    "worse": ("v", "#D55E00"),
    "equivalent": ("s", "#0072B2"),
    "no significant difference": ("o", "#777777"),
    "search inconclusive": ("x", "#777777"),
}


def accuracy_against_share(study: Study) -> Figure:
    """Accuracy with 95 % intervals against the trained share of the base's parameters (Figure 1 left of the paper).

    Where the base is not at hand, against the number of trained parameters.
    """
    whole = base_parameters(study)
    costs = {label: study.trained_parameters(label) for label in study.rows}
    x = {label: cost if whole is None else 100 * cost / whole for label, cost in costs.items() if cost}
    figure = Figure(figsize=(_WIDTH, _height(len(x))), layout="constrained")
    axis = figure.subplots()
    _scatter(study, axis, x, list(x))
    axis.set_xscale("log")
    axis.set_xlabel("trained parameters" if whole is None else "trained parameters, % of the base")
    _decades(axis)
    if study.base is not None:
        low = seed_problem_interval(study.base).value
        axis.axhline(low, color=_FAINT, linestyle="--", linewidth=1)
        bottom, top = axis.get_ylim()
        axis.set_ylim(min(bottom, low - 0.06 * (top - low)))
        axis.annotate(
            "untrained base",
            (1, low),
            (3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            annotation_clip=False,  # beside the panel, where no row's name can lie
            fontsize=7,
            color=_FAINT,
        )
    _name(study, axis, x, list(x))
    return figure


def pareto(study: Study, cost: Literal["memory", "time"] = "memory") -> Figure:
    """Accuracy against peak memory or training time, with the front: rows that no other beats in both.

    Args:
        study: what is drawn.
        cost: ``memory`` in MiB or ``time`` in seconds of a run's training.

    Raises:
        UserError: there is no such cost, or the rows do not differ in memory.
    """
    if cost not in ("memory", "time"):
        raise unknown_name("cost", cost, ("memory", "time"))
    if cost == "memory" and not study.memory_differs:
        raise UserError("peak memory is the same for all rows, up to the noise of an allocator: draw cost='time'")
    memory = {label: bytes / 2**20 for label in study.rows if (bytes := study.peak_memory(label))}
    seconds = {label: spent for label in study.rows if (spent := study.train_seconds(label))}
    x = memory if cost == "memory" else seconds
    front = pareto_front({label: (x[label], _value(study, label)) for label in _scored(study, x)})
    few = len(_scored(study, x)) <= 12
    named = list(x) if few else [*front, study.design.reference]
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    axis = figure.subplots()
    _scatter(study, axis, x, named)
    axis.set_xlabel("peak memory, MiB" if cost == "memory" else "training time of a run, s")
    stairs = [(x[label], _value(study, label)) for label in front]
    axis.plot(*zip(*stairs, strict=True), drawstyle="steps-post", color=_INK, linewidth=1, alpha=0.5, zorder=1)
    _name(study, axis, x, named)
    return figure


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points (cost, accuracy) that no other beats in one without losing in the other; cheapest first.

    >>> pareto_front({"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.9)})
    ['a', 'c']
    """
    front: list[str] = []
    best = -math.inf
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if points[name][1] > best:
            front.append(name)
            best = points[name][1]
    return front


def forest(study: Study) -> Figure:
    """Difference of every row to the reference with its 95 % interval, and the equivalence margin."""
    found = [c for label in study.rows if (c := study.comparison(label)) is not None]
    if not found:
        raise UserError(f"nothing to compare yet: {study.design.reference} and one other row need all their seeds")
    found.sort(key=lambda comparison: comparison.difference.value)
    figure = Figure(figsize=(_WIDTH, 1.1 + 0.22 * max(3, len(found))), layout="constrained")
    axis = figure.subplots()
    if study.margin:
        axis.axvspan(-study.margin, study.margin, color="#0072B2", alpha=0.12, linewidth=0)
    axis.axvline(0, color=_INK, linewidth=1)
    for place, comparison in enumerate(found):
        mark, colour = _VERDICTS[comparison.words.partition(",")[0]]
        d = comparison.difference
        axis.plot((d.low, d.high), (place, place), color=colour, linewidth=2, solid_capstyle="butt")
        face = "white" if mark == "o" else colour
        axis.plot(d.value, place, mark, color=colour, markerfacecolor=face, markersize=6)
    axis.set_yticks(range(len(found)), [plot_label(comparison.method, LABEL) for comparison in found])
    axis.set_ylim(-0.7, len(found) - 0.3)
    axis.set_xlabel(f"{study.metric} minus that of {plot_label(study.design.reference, LABEL)}")
    used = [verdict for verdict in _VERDICTS if any(c.words.partition(",")[0] == verdict for c in found)]
    for verdict in used:
        mark, colour = _VERDICTS[verdict]
        face = "white" if mark == "o" else colour
        axis.plot([], [], mark, color=colour, markerfacecolor=face, label=study.design.said(verdict))
    figure.legend(loc="outside lower center", ncols=len(used), fontsize=7.5, frameon=False)
    _tidy(axis, "x")
    return figure


def reward_curves(study: Study) -> Figure:
    """Mean reward while training, mean of five steps; the band is from the lowest to the highest seed (Figure 1 right).

    Many rows get a panel each, with the reference behind. Rows of equal rollouts stand against completions drawn.
    """
    curves = {label: found for label, row in study.rows.items() if (found := _curve(study, row)) is not None}
    if not curves:
        raise UserError("nothing to draw yet: no run is done")
    looks = _looks(study)
    if len(curves) <= _ONE_PANEL:
        figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
        axis = figure.subplots()
        for label, (x, middle, low, high) in curves.items():
            _band(axis, x, middle, low, high, looks[label][0])
        start, end = min(c[0][0] for c in curves.values()), max(c[0][-1] for c in curves.values())
        axis.set_xlim(start, end + room_for(curves, axis) * (end - start or 1))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _tidy(axis)
        axis.set(xlabel=_span(study), ylabel="mean reward")
        ends = [(float(c[0][-1]), float(c[1][-1])) for c in curves.values()]
        name_points(axis, ends, list(curves), [looks[label][0] for label in curves], right=True)
        return figure
    figure, panels = _panels(len(curves))
    reference = curves.get(study.design.reference)
    for axis, (label, (x, middle, low, high)) in zip(panels, curves.items(), strict=True):
        if reference is not None and label != study.design.reference:
            axis.plot(reference[0], reference[1], color=_FAINT, linewidth=1, linestyle="--")
        _band(axis, x, middle, low, high, looks[label][0])
        axis.set_title(plot_label(label, 22), fontsize=8, color=looks[label][0])
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    figure.supxlabel(_span(study), fontsize=8)
    figure.supylabel("mean reward", fontsize=8)
    return figure


def reward_areas(study: Study) -> Table:
    """Area under each row's reward curve divided by its length: the mean reward of all training, no smoothing.

    A row that learns early has more of it than one that ends as high but late.
    """
    rows = []
    for label, row in study.rows.items():
        curves = [rewards for rewards in map(_rewards, _runs(row)) if rewards]
        areas = [float(np.mean([value for _, value in rewards])) for rewards in curves]
        ends = [float(np.mean([value for _, value in rewards[-5:]])) for rewards in curves]
        cells: dict[str, Any] = {"row": label, "area": None}
        if areas:
            cells |= {"area": round(float(np.mean(areas)), 4), "lowest seed": round(min(areas), 4)}
            cells |= {"highest seed": round(max(areas), 4), "last five steps": round(float(np.mean(ends)), 4)}
            cells |= {"seeds": len(areas)}
        rows.append(cells)
    return Table.of(
        rows, title="Reward while training", note="Area under the curve divided by its length: mean reward."
    )


def learning_rate_curves(study: Study) -> Figure:
    """Validation accuracy against learning rate, one panel a row: open marks after half the steps, full ones after all.

    The shaded band holds the rates as good as the best within its interval; the line marks the rate that was chosen.
    """
    searched = {label: row for label, row in study.rows.items() if any(t.score is not None for t in row.search)}
    if not searched:
        raise UserError("no learning rate was searched" if study.design.tune == "none" else "no trial is done yet")
    bands = {cells["row"]: cells for cells in study.learning_rates}
    looks = _looks(study)
    figure, panels = _panels(len(searched))
    for axis, (label, row) in zip(panels, searched.items(), strict=True):
        colour = looks[label][0]
        band = bands[label]
        if band.get("good from") is not None:
            half = 10**0.125  # half the way to the next rate
            axis.axvspan(band["good from"] / half, band["to"] * half, color=colour, alpha=0.13, linewidth=0)
        if row.learning_rate is not None:
            axis.axvline(row.learning_rate, color=_INK, linewidth=1, linestyle=":")
        coarse = [(t.learning_rate, t.score) for t in row.search if not t.rung and t.score is not None]
        for found, style, face in ((coarse, "--", "white"), (list(fine_scores(row).items()), "-", colour)):
            if found:
                _bars(axis, found, colour, style, face)
        axis.set_title(plot_label(label, 22), fontsize=8, color=colour)
        axis.set_xscale("log")
        _decades(axis, most=3, powers=True)
    figure.supxlabel("learning rate", fontsize=8)
    figure.supylabel(f"{study.metric}, validation split", fontsize=8)
    return figure


def _bars(axis: Any, found: list[tuple[float, Interval]], colour: str, style: str, face: str) -> None:
    rates = [rate for rate, _ in found]
    values = [score.value for _, score in found]
    errors = [[s.value - s.low for _, s in found], [s.high - s.value for _, s in found]]
    axis.errorbar(rates, values, errors, color=colour, linestyle=style, linewidth=1.2, elinewidth=0.7, marker="o",
                  markersize=3.5, markerfacecolor=face)  # fmt: skip


def base_parameters(study: Study) -> int | None:
    """Parameters of the base, from its configuration; ``None`` where the base is not on this machine."""
    return _parameters(study.design.shared.base, study.design.shared.revision)


@functools.cache
def _parameters(base: str, revision: str | None) -> int | None:
    from transformers import AutoConfig

    try:
        # a report fetches nothing: a Hub model's configuration is taken from the cache, or is not there
        folder = base if "/" in base else bases.locate(base, revision).folder
        config = AutoConfig.from_pretrained(Path(folder).expanduser(), revision=revision, local_files_only=True)
        return methods.Layout.of_config(config).parameters
    except (UserError, OSError, ValueError):
        return None


def _runs(row: Row) -> list[Any]:
    return [row.runs[seed] for seed in sorted(row.runs)]


def _rewards(run: Any) -> list[tuple[int, float]]:
    return [(m["step"], m["reward"]) for m in run.metrics() if m.get("reward") is not None]


def _curve(study: Study, row: Row) -> tuple[NDArray[Any], ...] | None:
    """Steps or completions, and mean, lowest and highest seed of the smoothed reward there."""
    curves = [rewards for rewards in map(_rewards, _runs(row)) if rewards]
    if not curves:
        return None
    length = min(map(len, curves))
    x = np.array([step for step, _ in curves[0][:length]], dtype=float)
    if study.design.budget is not None:
        x *= (row.config.prompts_per_step or 1) * row.config.group_size
    y = np.array([smooth([value for _, value in rewards[:length]]) for rewards in curves])
    return x, y.mean(axis=0), y.min(axis=0), y.max(axis=0)


def _span(study: Study) -> str:
    return "step" if study.design.budget is None else "completions drawn"


def _band(axis: Any, x: Any, middle: Any, low: Any, high: Any, colour: str) -> None:
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axis.plot(x, middle, color=colour, linewidth=1.6, marker="o" if len(x) == 1 else "")


def _looks(study: Study) -> dict[str, tuple[str, str]]:
    """Colour and mark of each row, the same in every picture; the reference is black."""
    others = [label for label in study.rows if label != study.design.reference]
    looks = {label: (_HUES[i % len(_HUES)], _MARKS[i % len(_MARKS)]) for i, label in enumerate(others)}
    return looks | {study.design.reference: _REFERENCE}


def _value(study: Study, label: str) -> float:
    interval = study.accuracy(label)
    assert interval is not None
    return interval.value


def _scored(study: Study, x: Mapping[str, float]) -> list[str]:
    return [label for label in x if label in study.rows and study.accuracy(label) is not None]


def _scatter(study: Study, axis: Any, x: Mapping[str, float], strong: Collection[str]) -> None:
    """Points with intervals, those that are not named faint; the limits leave room for names."""
    labels, looks = _scored(study, x), _looks(study)
    if not labels:
        raise UserError("nothing to draw yet: no row has all its seeds, or none says what it cost")
    for label in labels:
        interval = study.accuracy(label)
        assert interval is not None
        colour, mark = looks[label]
        axis.errorbar(
            x[label],
            interval.value,
            [[interval.value - interval.low], [interval.high - interval.value]],
            color=colour,
            marker=mark,
            markersize=5,
            elinewidth=0.9,
            capsize=2,
            alpha=1 if label in strong else 0.3,
        )
    axis.margins(0.14, 0.08)
    axis.set_ylabel(study.metric)
    _tidy(axis)


def _name(study: Study, axis: Any, x: Mapping[str, float], chosen: Collection[str]) -> None:
    labels, looks = [label for label in _scored(study, x) if label in chosen], _looks(study)
    intervals = {label: interval for label in labels if (interval := study.accuracy(label)) is not None}
    points = [(x[label], intervals[label].value) for label in labels]
    spans = [(intervals[label].low, intervals[label].high) for label in labels]
    name_points(axis, points, labels, [looks[label][0] for label in labels], spans=spans)


def _height(count: int) -> float:
    return 3.4 + 0.09 * max(0, count - 6)


def _panels(count: int) -> tuple[Figure, list[Any]]:
    """A small panel each, of one scale, three beside each other."""
    columns = min(3, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(_WIDTH, 0.6 + 1.35 * max(lines, 1.5)), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    flat = list(grid.flat)
    for place, axis in enumerate(flat):
        axis.set_visible(place < count)
        axis.tick_params(labelbottom=place + columns >= count)
        _tidy(axis)
    return figure, flat[:count]


def _tidy(axis: Any, grid: str = "both") -> None:
    axis.grid(alpha=0.25, axis=grid)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7.5)
    axis.xaxis.label.set_size(8.5)
    axis.yaxis.label.set_size(8.5)


def _decades(axis: Any, most: int = 6, powers: bool = False) -> None:
    """Few ticks on a logarithmic axis, in plain figures or as 1e-3."""
    low, high = axis.get_xlim()
    close = high / low < 30
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if close else (1.0,), numticks=most))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value) if powers else f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _power(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")

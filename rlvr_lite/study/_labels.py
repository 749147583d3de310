"""Names beside the points of a plot: each where it covers nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from rlvr_lite.figure import plot_label

__all__ = ["LABEL", "name_points", "room_for"]

#: Longest name beside a mark, in characters.
LABEL = 26
_SIZE = 7.5
_NEAR = 15.0  # points; a name farther from its mark is tied to it by a line
_RINGS = (9.0, 13.0, 18.0, 24.0, 32.0, 42.0, 54.0, 68.0)
_ANGLES = tuple(math.radians(a) for a in (0, 35, -35, 90, -90, 145, -145, 180))


def room_for(names: Iterable[str], axis: Any) -> float:
    """How much longer an axis becomes for the longest of these names to stand at its end, as a share of its length."""
    figure = axis.get_figure()
    texts = [figure.text(0, 0, plot_label(name, LABEL), fontsize=_SIZE) for name in names]
    widest = max(Text.get_window_extent(text).width for text in texts) + 14 * figure.dpi / 72
    for text in texts:
        text.remove()
    share = widest / (0.86 * figure.bbox.width)  # of the figure: beside the axis stand its ticks
    return share / (1 - share)


def name_points(
    axis: Any,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    *,
    spans: Sequence[tuple[float, float]] = (),
    right: bool = False,
) -> None:
    """Write a name beside each point, away from other names, marks and error bars.

    Args:
        axis: with its limits as they will stay.
        points: in data coordinates.
        names: as many.
        colours: of the names.
        spans: lower and upper end of an error bar through each point.
        right: only to the right, for the ends of lines.
    """
    figure = axis.get_figure()
    figure.draw_without_rendering()  # settles the layout, which decides what lies where and stays as it is now
    figure.set_layout_engine("none")
    unit = figure.dpi / 72  # pixels a point
    pixels = [tuple(axis.transData.transform(point)) for point in points]
    marks = [Bbox.from_extents(x - 4 * unit, y - 4 * unit, x + 4 * unit, y + 4 * unit) for x, y in pixels]
    bars = [_bar(axis, point, span, unit) for point, span in zip(points, spans, strict=False)]
    taken: list[Bbox] = []
    frame = axis.get_window_extent()
    for (x, y), point, name, colour in zip(pixels, points, names, colours, strict=True):
        text = axis.annotate(
            plot_label(name, LABEL),
            point,
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=_SIZE,
            color=colour,
            ha="left",
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3},
            path_effects=[withStroke(linewidth=2.5, foreground="white")],  # a line behind does not strike it through
        )
        box = Text.get_window_extent(text)  # without its line
        width, height = box.width, box.height

        def cost(offset: tuple[float, float], x: float = x, y: float = y, w: float = width, h: float = height) -> float:
            place = _box(x, y, offset, w, h, unit)
            out = place.x0 < frame.x0 or place.x1 > frame.x1 or place.y0 < frame.y0 or place.y1 > frame.y1
            names_hit = sum(place.overlaps(other) for other in taken)
            marks_hit = sum(place.overlaps(other) for other in marks)
            bars_hit = sum(place.overlaps(other) for other in bars)
            return 400 * out + 300 * names_hit + 200 * marks_hit + 25 * bars_hit + math.hypot(*offset)

        steps = [6.0 * k for k in range(-20, 21)]
        around = [(r * math.cos(a), r * math.sin(a)) for r, a in itertools.product(_RINGS, _ANGLES)]
        offset = min([(7.0, dy) for dy in steps] if right else around, key=cost)
        place = _box(x, y, offset, width, height, unit)
        taken.append(place)
        text.set_position(((place.x0 - x) / unit, offset[1]))
        if math.hypot(*offset) < _NEAR and text.arrow_patch is not None:
            text.arrow_patch.set_visible(False)


def _box(x: float, y: float, offset: tuple[float, float], width: float, height: float, unit: float) -> Bbox:
    """Where a name stands whose nearest side, or middle, is at the offset."""
    dx, dy = offset[0] * unit, offset[1] * unit
    left = x + dx if dx > 1 else x + dx - width if dx < -1 else x - width / 2
    return Bbox.from_bounds(left, y + dy - height / 2, width, height)


def _bar(axis: Any, point: tuple[float, float], span: tuple[float, float], unit: float) -> Bbox:
    x, low = axis.transData.transform((point[0], span[0]))
    _, high = axis.transData.transform((point[0], span[1]))
    return Bbox.from_extents(x - unit, low, x + unit, high)

"""Curves of a run, or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from rlvr_lite.figure import Figure, plot_label

__all__ = ["COLOURS", "smooth", "training_curves"]

#: Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_PANELS = (
    ("reward", "mean reward", (0.0, 1.0)),
    ("frac_reward_zero_std", "zero-advantage groups", (0.0, 1.0)),
    ("completions/mean_length", "tokens per completion", None),
)


def smooth(values: Sequence[float], span: int = 5) -> list[float]:
    """Mean of each value with up to ``span - 1`` before it.

    >>> smooth([0.0, 1.0, 2.0], span=2)
    [0.0, 0.5, 1.5]
    """
    windows = (values[max(0, i - span + 1) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def training_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], *, stacked: bool = False) -> Figure:
    """Reward, share of zero-advantage groups and length against the step.

    Args:
        runs: rows of ``metrics.jsonl`` by the label of the run.
        stacked: panels below each other, for a narrow page.

    Returns:
        A figure of three panels; raw values faint, the mean of five steps on top.
    """
    figure = Figure(figsize=(4.2, 8.4) if stacked else (11, 3.2), layout="constrained")
    axes = figure.subplots(*((len(_PANELS), 1) if stacked else (1, len(_PANELS))))
    for axis, (key, title, limits) in zip(axes, _PANELS, strict=True):
        for (label, rows), colour in zip(runs.items(), COLOURS * (1 + len(runs) // len(COLOURS)), strict=False):
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            axis.plot(steps, smooth(values), color=colour, linewidth=2, label=plot_label(label))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if limits:
            axis.set_ylim(*limits)
    axes[0].legend(frameon=False, fontsize=9)
    return figure

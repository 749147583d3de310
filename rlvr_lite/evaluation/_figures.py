"""Pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rlvr_lite.evaluation._scores import Score

if TYPE_CHECKING:
    from rlvr_lite.figure import Figure

__all__ = ["heat_map"]

_WRONG, _CUT, _RIGHT = "#eceff1", "#f2b56b", "#1b5e8c"


def heat_map(scores: Mapping[str, Score]) -> Figure:
    """Outcomes of every answer: a panel a benchmark, a column a problem from hard to easy, a row a sample."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    from rlvr_lite.figure import Figure, plot_label

    heights = [max(2.0, min(score.k or 1, 32) / 4) for score in scores.values()]
    figure = Figure(figsize=(8.0, 0.9 * len(scores) + 0.45 * sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(scores), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (name, score) in zip(axes, scores.items(), strict=True):
        right = score.correct if score.correct is not None else score.greedy
        assert right is not None
        grid = right.reshape(len(score.ids), -1)
        state = np.where(grid, 2, np.where(score.truncated, 1, 0))
        order = np.lexsort((score.truncated.mean(axis=1), grid.mean(axis=1)))
        axis.imshow(
            np.sort(state[order], axis=1)[:, ::-1].T,
            aspect="auto",
            interpolation="nearest",
            cmap=ListedColormap([_WRONG, _CUT, _RIGHT]),
            vmin=0,
            vmax=2,
            origin="lower",
        )
        axis.set_title(f"{plot_label(name)}: {grid.mean():.1%} right", fontsize=10, loc="left")
        axis.set_ylabel("answers" if score.k else "greedy", fontsize=9)
        axis.set_yticks([])
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("problems, from hard to easy", fontsize=9)
    patches = [Patch(facecolor=c, edgecolor="#90a4ae") for c in (_RIGHT, _WRONG, _CUT)]
    figure.legend(
        patches, ["right", "wrong", "wrong, cut off"], loc="outside upper right", ncols=3, fontsize=8, frameon=False
    )
    return figure

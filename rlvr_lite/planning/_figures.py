"""The phases of a plan as stacked bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.analysis.memory import GIB

if TYPE_CHECKING:
    from rlvr_lite.figure import Figure
    from rlvr_lite.planning._planned import Plan

__all__ = ["bars"]


def bars(plan: Plan) -> Figure:
    """A bar for each phase, stacked by kind, what is assumed on top; a line marks what the card gives."""
    from rlvr_lite.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 0.45 * len(plan.phases)), layout="constrained")
    axes = figure.subplots()
    phases = list(plan.phases)[::-1]
    kinds = list(dict.fromkeys(kind for bill in plan.phases.values() for kind in bill))
    left = [0.0] * len(phases)
    for kind in kinds:
        widths = [plan.phases[phase].get(kind, 0) / GIB for phase in phases]
        axes.barh(phases, widths, left=left, label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    rest = [plan.needed(phase) / GIB - used for phase, used in zip(phases, left, strict=True)]
    axes.barh(phases, rest, left=left, label="context, fragmentation", color="0.85")
    if plan.available is not None:
        axes.axvline(plan.available / GIB, color="0.2", linestyle="--")
    axes.set_xlabel(f"GiB ({plan.source})")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    return figure

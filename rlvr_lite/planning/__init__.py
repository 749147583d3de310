"""What a run needs in memory: planned from the base's shapes, dry-run on fake tensors, or measured on a card (``measure``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.lazy import on_use
from rlvr_lite.planning._bases import config_of
from rlvr_lite.planning._cards import CARDS, Card, card
from rlvr_lite.planning._cost import Cost, cost_table, run_cost, score_cost
from rlvr_lite.planning._planned import Plan, plan, plan_without_task, shape_of

if TYPE_CHECKING:
    from rlvr_lite.planning._dry_run import Runner as Runner
    from rlvr_lite.planning._dry_run import dry_run as dry_run
    from rlvr_lite.planning._dry_run import measure_step as measure_step

__all__ = [
    "CARDS",
    "Card",
    "Cost",
    "Plan",
    "card",
    "config_of",
    "cost_table",
    "plan",
    "plan_without_task",
    "run_cost",
    "score_cost",
    "shape_of",
]

#: A plan in closed form runs nothing.
__getattr__ = on_use(__name__, dict.fromkeys(("Runner", "dry_run", "measure_step"), "_dry_run"))

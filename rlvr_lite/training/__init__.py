"""Training: a GRPO trainer, checkpoints that resume bit for bit, and runs that can be read afterwards."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr_lite.training._stock import GRPOConfig
    from rlvr_lite.training.figures import training_curves
    from rlvr_lite.training.run import Run
    from rlvr_lite.training.trainer import GRPOTrainer
    from rlvr_lite.training.workflow import train

__all__ = ["GRPOConfig", "GRPOTrainer", "Run", "train", "training_curves"]

_HOMES = {
    "GRPOConfig": "_stock",
    "GRPOTrainer": "trainer",
    "Run": "run",
    "train": "workflow",
    "training_curves": "figures",
}


def __getattr__(name: str) -> Any:
    """Import on first use: reading a run needs neither torch nor TRL."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

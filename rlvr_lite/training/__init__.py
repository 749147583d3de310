"""Training: a GRPO trainer, checkpoints that resume bit for bit, and runs that can be read afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.lazy import on_use

if TYPE_CHECKING:
    from rlvr_lite.training._accuracy import accuracy
    from rlvr_lite.training._checkpoints import generator_states, restore_generators
    from rlvr_lite.training._environment import threads
    from rlvr_lite.training._figures import COLOURS, smooth, training_curves
    from rlvr_lite.training._grading import Objective as Objective
    from rlvr_lite.training._run import Run
    from rlvr_lite.training._stock import GRPOConfig
    from rlvr_lite.training._trainer import GRPOTrainer
    from rlvr_lite.training._workflow import train

__all__ = [
    "COLOURS",
    "GRPOConfig",
    "GRPOTrainer",
    "Run",
    "accuracy",
    "generator_states",
    "restore_generators",
    "smooth",
    "threads",
    "train",
    "training_curves",
]

_HOMES = {
    "COLOURS": "_figures",
    "Objective": "_grading",
    "accuracy": "_accuracy",
    "generator_states": "_checkpoints",
    "restore_generators": "_checkpoints",
    "smooth": "_figures",
    "threads": "_environment",
    "GRPOConfig": "_stock",
    "GRPOTrainer": "_trainer",
    "Run": "_run",
    "train": "_workflow",
    "training_curves": "_figures",
}

#: Reading a run needs neither torch nor TRL.
__getattr__ = on_use(__name__, _HOMES)

"""Which parameter-efficient method should train your small reasoning model with verifiable rewards?

>>> import rlvr_lite
>>> run = rlvr_lite.train("dora", base="tiny", task="chain-sum")  # doctest: +SKIP
>>> print(run)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# It warns on every CPU that an optional package is missing, which nothing here uses; PEFT brings it in early.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from rlvr_lite import (
        analysis,
        bases,
        diagnostics,
        evaluation,
        exports,
        grpo,
        methods,
        planning,
        rewards,
        sampling,
        study,
        tasks,
        training,
    )
    from rlvr_lite.api import load, spectrum
    from rlvr_lite.config import AdapterConfig, RunConfig, SamplingConfig
    from rlvr_lite.conversation import chat
    from rlvr_lite.diagnostics import doctor
    from rlvr_lite.errors import UserError
    from rlvr_lite.evaluation import Evaluation, evaluate, list_benchmarks
    from rlvr_lite.exports import export, verify_export
    from rlvr_lite.methods import list_methods
    from rlvr_lite.paper import claims
    from rlvr_lite.planning import Plan, plan
    from rlvr_lite.recipes import list_recipes, recipe
    from rlvr_lite.study import Study, compare
    from rlvr_lite.tasks import list_tasks
    from rlvr_lite.training import Run, train

__all__ = [
    "AdapterConfig",
    "Evaluation",
    "Plan",
    "Run",
    "RunConfig",
    "SamplingConfig",
    "Study",
    "UserError",
    "analysis",
    "bases",
    "chat",
    "claims",
    "compare",
    "diagnostics",
    "doctor",
    "evaluate",
    "evaluation",
    "export",
    "exports",
    "grpo",
    "list_benchmarks",
    "list_methods",
    "list_recipes",
    "list_tasks",
    "load",
    "methods",
    "plan",
    "planning",
    "recipe",
    "rewards",
    "sampling",
    "spectrum",
    "study",
    "tasks",
    "train",
    "training",
    "verify_export",
]

_HOMES = {
    "config": ("AdapterConfig", "RunConfig", "SamplingConfig"),
    "conversation": ("chat",),
    "diagnostics": ("doctor",),
    "errors": ("UserError",),
    "evaluation": ("Evaluation", "evaluate", "list_benchmarks"),
    "exports": ("export", "verify_export"),
    "api": ("load", "spectrum"),
    "methods": ("list_methods",),
    "planning": ("Plan", "plan"),
    "paper": ("claims",),
    "recipes": ("list_recipes", "recipe"),
    "study": ("Study", "compare"),
    "tasks": ("list_tasks",),
    "training": ("Run", "train"),
}
_ROOMS = (
    "analysis",
    "bases",
    "diagnostics",
    "exports",
    "evaluation",
    "grpo",
    "methods",
    "planning",
    "rewards",
    "sampling",
    "study",
    "tasks",
    "training",
)


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import rlvr_lite`` costs nothing and needs no torch."""
    if name in _ROOMS:
        return importlib.import_module(f"rlvr_lite.{name}")
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"rlvr_lite.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'rlvr_lite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

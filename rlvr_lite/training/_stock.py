"""TRL's trainer and configuration as TRL wrote them, also where Unsloth has put its own in their place."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import trl

__all__ = ["GRPOConfig", "GRPOTrainer"]

_CONFIG, _TRAINER = "trl.trainer.grpo_config", "trl.trainer.grpo_trainer"


def _again(name: str, **replaced: Any) -> Any:
    """A second execution of a module of TRL, beside the first."""
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    package, _, last = name.rpartition(".")
    spec = importlib.util.spec_from_file_location(f"{package}._stock_{last}", found.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    vars(module).update(replaced)
    return module


if TYPE_CHECKING or trl.GRPOTrainer.__module__ == _TRAINER:
    from trl import GRPOConfig, GRPOTrainer
else:
    GRPOConfig = _again(_CONFIG).GRPOConfig
    GRPOTrainer = _again(_TRAINER, GRPOConfig=GRPOConfig).GRPOTrainer

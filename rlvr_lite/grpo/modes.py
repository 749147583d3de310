"""Switching dropout off, for a while or for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["eval_mode", "remove_dropout"]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off inside; afterwards, also after an interruption, each module is in the mode it was in.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with eval_mode(model):
    ...     [module.training for module in model]
    [False, False]
    >>> [module.training for module in model]
    [True, False]
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def remove_dropout(model: nn.Module) -> dict[str, float]:
    """Set every rate of dropout that a model holds to 0: of its layers, and the numbers that its code reads.

    A policy is one distribution: completions are sampled without dropout, so it must be scored without. Switching to
    eval mode would do that too, but takes gradient checkpointing with it.

    Args:
        model: without an adapter whose own dropout is wanted.

    Returns:
        what was found, rate by name.

    >>> remove_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    {'1.p': 0.1}
    """
    found: dict[str, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p:
            found[f"{name}.p"] = module.p
            module.p = 0.0
        found |= {f"{name}.{key}": rate for key, rate in _take(vars(module)).items()}
    for config in _configs(getattr(model, "config", None)):
        found |= {f"config.{key}": rate for key, rate in _take(vars(config)).items()}
    return found


def _take(values: dict[str, Any]) -> dict[str, float]:
    """Rates among the attributes, each replaced by 0: dropout by whatever name, and the noise of a router."""
    found = {
        k: v
        for k, v in values.items()
        if ("drop" in k.lower() or "jitter" in k.lower()) and isinstance(v, float) and 0 < v < 1
    }
    values.update(dict.fromkeys(found, 0.0))
    return found


def _configs(config: Any) -> Iterator[Any]:
    if config is not None and hasattr(config, "__dict__"):
        yield config
        for value in vars(config).values():
            if hasattr(value, "to_dict"):
                yield from _configs(value)

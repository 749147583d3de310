"""Switching dropout off, for a while or for good."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["dropout_rates", "eval_mode", "remove_dropout"]


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
    found = list(_rates(model))
    for owner, key, _, _ in found:
        owner[key] = 0.0
    for module in model.modules():
        if hasattr(module, "router_jitter_noise"):  # PhiMoE draws its experts at random in training mode
            module.eval()
            module.train = types.MethodType(lambda self, mode=True: self, module)  # type: ignore[method-assign]
    return {name: rate for _, _, name, rate in found}


def dropout_rates(model: nn.Module) -> dict[str, float]:
    """The rates of dropout that :func:`remove_dropout` would set to 0, by name."""
    return {name: rate for _, _, name, rate in _rates(model)}


def _rates(model: nn.Module) -> Iterator[tuple[dict[str, Any], str, str, float]]:
    """Where each rate stands: dropout by whatever name, and the noise of a router."""
    owners = [(f"{name}.", vars(module)) for name, module in model.named_modules()]
    owners += [("config.", vars(config)) for config in _configs(getattr(model, "config", None))]
    layers = {id(vars(m)) for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)}
    for prefix, values in owners:
        for key, rate in values.items():
            noise = "jitter" in key.lower() and "router" not in key.lower()  # a threshold of PhiMoE, also in eval mode
            named = noise or "drop" in key.lower() or (key == "p" and id(values) in layers)
            if named and isinstance(rate, float) and 0 < rate <= 1:
                yield values, key, f"{prefix}{key}", rate


def _configs(config: Any) -> Iterator[Any]:
    if config is not None and hasattr(config, "__dict__"):
        yield config
        for value in vars(config).values():
            if hasattr(value, "to_dict"):
                yield from _configs(value)

"""The proof that a model trains what its label says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from rlvr_lite.config import AdapterConfig, scale_of
from rlvr_lite.methods._attached import disabled
from rlvr_lite.methods._attachment import attachment, base_tensors
from rlvr_lite.methods._hash import tensors_hash
from rlvr_lite.methods._lora import ADAPTER
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._resolve import resolve

__all__ = ["Identity", "identity"]


@dataclass(frozen=True)
class Identity:
    """What a model trains, against what its method must train; every field is JSON.

    Attributes:
        method: the name it goes by.
        rank: r, where the method has one.
        alpha: numerator of its scale, where it has one.
        scale: the factor on its update.
        targets: adapted linear layers.
        options: the method's own options.
        layers: adapter layer classes and how many of each.
        trainable: name, shape and dtype of every trainable tensor.
        trainable_parameters: their number.
        expected_parameters: the number written down for the method.
        share: of the base's parameters.
        with_gradient: share of trainable tensors that hold a non-zero gradient now; ``None`` if none holds any.
        learning_rates: by parameter group of the optimizer, if one was given.
        budget: ranks in use and ranks allotted at the end (AdaLoRA).
        base: hash of the base.
        failures: every way in which the model is not what it is called; empty if it is.
    """

    method: str
    rank: int | None
    alpha: float | None
    scale: float | None
    targets: tuple[str, ...] | None
    options: dict[str, object]
    layers: dict[str, int]
    trainable: list[dict[str, object]]
    trainable_parameters: int
    expected_parameters: int
    share: float
    with_gradient: float | None
    learning_rates: dict[str, float]
    budget: dict[str, int]
    base: str
    failures: list[str] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def identity(
    model: nn.Module,
    name: str,
    adapter: AdapterConfig,
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> Identity:
    """Compare an attached model with the written expectation of the method it is called.

    Args:
        model: what :func:`attach` returned, at any time of training.
        name: the label under test.
        adapter: the configuration asked for.
        optimizer: its learning rates are recorded, and must cover every trainable tensor and nothing else.
    """
    found = attachment(model)
    method = get(name)
    layout = found.build.layout
    adapter = resolve(name, adapter, scale_of(layout.parameters))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    expected = method.expected(layout, adapter)
    failures = []
    if found.method != name:
        failures.append(f"attached as {found.method}, labelled {name}")
    if found.build.adapter != adapter:
        failures.append(f"attached with {found.build.adapter}, asked for {adapter}")
    failures += _differences({n: tuple(p.shape) for n, p in trained.items()}, expected)
    failures += [f"{n} is {p.dtype}, not float32" for n, p in trained.items() if p.dtype != torch.float32]
    layers = Counter(_adapter_layers(model))
    layer = method.layer if isinstance(method.layer, str) else method.layer(adapter)
    if set(layers) != ({layer} if layer else set()):
        failures.append(f"adapter layers are {sorted(layers)}, not {layer or 'none'}")
    if not get(found.method).trains_base:
        with disabled(model):
            if found.frozen_hash != tensors_hash(base_tensors(model)):
                failures.append("the frozen base changed")
    rates: dict[str, float] = {}
    if optimizer is not None:
        rates = {str(g.get("name", i)): float(g["lr"]) for i, g in enumerate(optimizer.param_groups)}
        held = {id(p) for g in optimizer.param_groups for p in g["params"]}
        failures += [f"the optimizer leaves out {n}" for n, p in trained.items() if id(p) not in held]
        if held - {id(p) for p in trained.values()}:
            failures.append("the optimizer holds frozen tensors")
    budget = method.budget(model) if method.budget and not failures else {}
    if budget.get("final") and budget["used"] > budget["target"]:
        failures.append(f"{budget['used']} ranks in use, {budget['target']} allotted")
    count = sum(p.numel() for p in trained.values())
    return Identity(
        method=name,
        rank=adapter.rank,
        alpha=adapter.alpha,
        scale=method.scale(adapter.alpha, adapter.rank) if method.scale and adapter.alpha and adapter.rank else None,
        targets=adapter.targets,
        options=dict(adapter.options),
        layers=dict(sorted(layers.items())),
        trainable=[{"name": n, "shape": list(p.shape), "dtype": str(p.dtype)} for n, p in trained.items()],
        trainable_parameters=count,
        expected_parameters=sum(prod(shape) for shape in expected.values()),
        share=count / layout.parameters,
        with_gradient=_with_gradient(list(trained.values())),
        learning_rates=rates,
        budget=budget,
        base=found.base_hash,
        failures=failures,
    )


def _differences(actual: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> list[str]:
    missing = [f"{n} is not trained" for n in expected if n not in actual]
    extra = [f"{n} is trained, which the method does not do" for n in actual if n not in expected]
    shapes = [f"{n} has shape {actual[n]}, not {s}" for n, s in expected.items() if n in actual and actual[n] != s]
    return missing + extra + shapes


def _adapter_layers(model: nn.Module) -> list[str]:
    return [_describe(module) for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _describe(layer: Any) -> str:
    """A layer in words: tuner and class, for a LoRA also what its two sides and its forward are.

    The 4-bit twin of a class goes by the same name, so that one expectation holds on every base.
    """
    kind = type(layer)
    home = kind.__module__.split(".")
    name = f"{home[2] if home[0] == 'peft' else home[0]}.{kind.__name__.removesuffix('4bit')}"
    if isinstance(getattr(layer, "lora_A", None), nn.ModuleDict):
        sides = ", ".join(type(side[ADAPTER]).__name__ for side in (layer.lora_A, layer.lora_B))
        variant = layer.lora_variant.get(ADAPTER)
        name += f"({sides})" + (f" + {type(variant).__name__}" if variant else "")
    return name


def _with_gradient(trained: list[nn.Parameter]) -> float | None:
    if all(p.grad is None for p in trained):
        return None
    return sum(p.grad is not None and bool(p.grad.count_nonzero()) for p in trained) / len(trained)

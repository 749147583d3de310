"""The proof that a model trains what its label says."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
from torch import nn

from rlvr_lite.config import AdapterConfig, scale_of
from rlvr_lite.methods._attached import disabled
from rlvr_lite.methods._attachment import attachment, base_tensors
from rlvr_lite.methods._hash import tensors_hash
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._resolve import resolve
from rlvr_lite.methods._structure import adapter_layers, differences

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
        without_adapter: matrices of the blocks that carry no adapter: how many, by name within the block.
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
    without_adapter: dict[str, int]
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
    adapter = resolve(name, adapter, scale_of(layout.parameters), layout)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    expected = method.expected(layout, adapter)
    layers = adapter_layers(model)
    failures = []
    if found.method != name:
        failures.append(f"attached as {found.method}, labelled {name}")
    if found.build.adapter != adapter:
        failures.append(f"attached with {found.build.adapter}, asked for {adapter}")
    failures += differences(model, method, layout, adapter)
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
        without_adapter=layout.without_adapter(adapter.targets) if adapter.targets else {},
        budget=budget,
        base=found.base_hash,
        failures=failures,
    )


def _with_gradient(trained: list[nn.Parameter]) -> float | None:
    if all(p.grad is None for p in trained):
        return None
    return sum(p.grad is not None and bool(p.grad.count_nonzero()) for p in trained) / len(trained)

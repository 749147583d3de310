"""What a model would train, against what its method must: names, shapes, types and layers, before any step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER
from rlvr_lite.methods._spec import Method, Shapes

__all__ = ["adapter_layers", "differences"]


def differences(model: nn.Module, method: Method, layout: Layout, adapter: AdapterConfig) -> list[str]:
    """Every way in which the trainable tensors and adapter layers of ``model`` are not the method's own."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    failures = _apart({n: tuple(p.shape) for n, p in trained.items()}, method.expected(layout, adapter))
    failures += [f"{n} is {p.dtype}, not float32" for n, p in trained.items() if p.dtype != torch.float32]
    layers = set(adapter_layers(model))
    layer = method.layer if isinstance(method.layer, str) else method.layer(adapter)
    if layers != ({layer} if layer else set()):
        failures.append(f"adapter layers are {sorted(layers)}, not {layer or 'none'}")
    return failures


def _apart(actual: dict[str, tuple[int, ...]], expected: Shapes) -> list[str]:
    missing = [f"{n} is not trained" for n in expected if n not in actual]
    extra = [f"{n} is trained, which the method does not do" for n in actual if n not in expected]
    shapes = [f"{n} has shape {actual[n]}, not {s}" for n, s in expected.items() if n in actual and actual[n] != s]
    return missing + extra + shapes


def adapter_layers(model: nn.Module) -> Counter[str]:
    """Adapter layers in words, and how many of each."""
    return Counter(_describe(module) for module in model.modules() if isinstance(module, BaseTunerLayer))


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

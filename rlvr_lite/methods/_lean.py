"""Adapters for the time of a rollout: cast, folded and stacked once, since the policy does not change within it.

Every product keeps the operands and the roundings that the layer's own forward gives it, so the policy that samples is the
one that is scored. What has no lean form is called as it is.
"""

from __future__ import annotations

import copy as copying
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from rlvr_lite.methods._computed import ComputedLinear
from rlvr_lite.methods._lean_layers import Casts, Update, input_of, update_of

__all__ = ["lean"]

#: Layers that read the same input, if the first of them is called with it.
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_MOST = 128  # ranks of a group beyond which a block-diagonal B costs more than it saves


@contextmanager
def lean(model: nn.Module, *, copy: bool = False) -> Iterator[None]:
    """Within this context the layers compute what they say under the autocast of the caller, with fewer operations.

    Weights must not change inside. Afterwards, also after an exception, every layer is what it was. What is lean already
    stays so.

    Args:
        model: with an adapter or without.
        copy: multiply with a copy of 4-bit weights in their compute dtype, in which dequantising gives them.
    """
    changed: list[Any] = []
    folded: list[ComputedLinear] = []
    try:
        torch.clear_autocast_cache()  # what follows has casts of its own
        with torch.no_grad():
            dtype = _computes_in(model)
            for target, forward in () if dtype is None else _forwards(model, dtype, copy):
                changed.append(target)
                target.forward = forward
            for linear in _still_computed(model):
                folded.append(linear)
                linear.folded = linear.compute().detach()
        yield
    finally:
        for layer in changed:
            vars(layer).pop("forward", None)
        for linear in folded:
            linear.folded = None


def _still_computed(model: nn.Module) -> Iterator[ComputedLinear]:
    """What layers that are called as they are would compute for every token."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and "forward" not in vars(layer):
            for linear in [*layer.lora_A.values(), *layer.lora_B.values()]:
                if isinstance(linear, ComputedLinear) and linear.folded is None:
                    yield linear


def _computes_in(model: nn.Module) -> torch.dtype | None:
    """In what adapters multiply: the type of autocast, or fp32 all over; ``None`` if they mix types in their own ways."""
    weights = [p for p in model.parameters() if p.is_floating_point()]
    device = weights[0].device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.float32 if all(p.dtype == torch.float32 for p in weights) else None


Forward = Callable[..., Tensor]


def _forwards(model: nn.Module, dtype: torch.dtype, copy: bool) -> Iterator[tuple[nn.Module, Forward]]:
    """Layers, and what they are called by for the time; one group after the other, so that no more is held than has to be."""
    casts, copied = Casts(model, dtype), set()
    hosted = hasattr(model, "_rlvr_lite_host")  # whose kernels read the weights of a plain LoRA and of the base
    copy = copy and not hosted
    for layers in _groups(model):
        kinds: dict[Any, list[tuple[Any, Update]]] = {}
        for layer in layers:
            if hosted and isinstance(layer, LoraLayer) and not layer.lora_variant:
                continue
            turned = input_of(layer, casts)
            if turned is not None:
                yield layer, _turning(layer.get_base_layer(), turned)
                continue
            update = update_of(layer, casts)
            if update is not None:
                kinds.setdefault(update.kind, []).append((layer, update))
        for group in kinds.values():
            bases = [layer.get_base_layer() for layer, _ in group]
            inner = _Inner([update for _, update in group])
            if copy and len(group) > 1 and all(_in_four_bits(base, dtype) for base in bases):
                copied.update(bases)
                stacked = _Stacked([_dequantised(base) for base in bases], inner)
                yield from ((layer, _taking(stacked, i)) for i, (layer, _) in enumerate(group))
            else:
                yield from ((layer, _adding(bases[i], inner, i)) for i, (layer, _) in enumerate(group))
        kinds.clear()
    for module in model.modules():
        if copy and module not in copied and _in_four_bits(module, dtype):
            yield module, _multiplying(*_dequantised(module))


def _groups(model: nn.Module) -> Iterator[list[Any]]:
    """Adapter layers that read the same input."""
    found: dict[Any, list[Any]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and "forward" not in vars(layer) and _plainly_active(layer):
            stem, _, leaf = name.rpartition(".")
            together = next((names for names in _TOGETHER if leaf in names), leaf)
            found.setdefault((stem, together), []).append(layer)
    yield from found.values()


def _plainly_active(layer: Any) -> bool:
    return not layer.disable_adapters and not layer.merged and len(layer.active_adapters) == 1


def _in_four_bits(module: Any, dtype: torch.dtype) -> bool:
    """Whether it is a 4-bit layer that multiplies in the type of everything else."""
    return (
        type(module).__name__ == "Linear4bit"
        and not isinstance(module, BaseTunerLayer)
        and "forward" not in vars(module)
        and module.compute_dtype == dtype
    )


def _dequantised(layer: Any) -> tuple[Tensor, Tensor | None]:
    """The weight ``[out, in]`` that a 4-bit layer multiplies with, and its bias."""
    from bitsandbytes.functional import dequantize_4bit

    state = copying.copy(layer.weight.quant_state)
    state.dtype = layer.compute_dtype  # rounded once, as the layer does it
    return dequantize_4bit(layer.weight, state), None if layer.bias is None else layer.bias.to(state.dtype)


def _multiplying(weight: Tensor, bias: Tensor | None) -> Forward:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        return F.linear(x.to(weight.dtype), weight, bias).to(x.dtype)

    return forward


def _turning(base: Any, turned: Callable[[Tensor], Tensor]) -> Forward:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return base(turned(x).to(x.dtype), *args, **kwargs).to(x.dtype)

    return forward


def _adding(base: Any, inner: _Inner, index: int) -> Forward:
    update = inner.updates[index]

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = base(x, *args, **kwargs)
        return update.added(result, inner.take(index, x)).to(result.dtype)

    return forward


def _taking(stacked: _Stacked, index: int) -> Forward:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        return stacked.take(index, x)

    return forward


class _Once(ABC):
    """What several layers take from one input is computed when the first of them is called with it."""

    def __init__(self, count: int):
        self._all = set(range(count))
        self._left = self._all.copy()
        self._x: Tensor | None = None
        self._made: Any = ()

    @abstractmethod
    def make(self, x: Tensor) -> Any:
        """All of it, one of each layer."""

    def take(self, index: int, x: Tensor) -> Tensor:
        """The part of a layer."""
        if self._x is not x or index not in self._left:
            self._x, self._made, self._left = x, self.make(x), self._all.copy()
        made: Tensor = self._made[index]
        self._left.discard(index)
        if not self._left:
            self._x, self._made = None, ()
        return made


class _Inner(_Once):
    """``A x`` of layers that read the same x, as one product."""

    def __init__(self, updates: list[Update]):
        super().__init__(len(updates))
        self.updates = [replace(update, a=None) for update in updates]
        sides = [u.a for u in updates if u.a is not None]
        self._a = torch.cat(sides) if len(sides) > 1 else sides[0] if sides else None
        self._ranks = [len(a) for a in sides]

    def make(self, x: Tensor) -> Any:
        """``[.., r]`` of each."""
        made = self.whole(x)
        if self._a is None:  # MiSS: all take the same sums
            return [made] * len(self.updates)
        return (made,) if len(self._ranks) == 1 else made.split(self._ranks, -1)

    def whole(self, x: Tensor) -> Tensor:
        """``[.., sum r]``, not taken apart."""
        first = self.updates[0]
        return first.summed(x) if self._a is None else F.linear(x.to(first.dtype), self._a)


class _Stacked(_Once):
    """Layers that read the same x, base and adapters: one product with each of W and A, in bf16 also with B."""

    def __init__(self, own: list[tuple[Tensor, Tensor | None]], inner: _Inner):
        super().__init__(len(own))
        self._inner = inner
        self._outs = [len(weight) for weight, _ in own]
        self._weight = torch.cat([weight for weight, _ in own])
        biases = [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in own]
        self._bias = torch.cat(biases) if any(bias is not None for _, bias in own) else None
        self._whole = Update.stacked(inner.updates, _MOST) if self._weight.dtype == torch.bfloat16 else None
        if self._whole is not None:
            inner.updates = [replace(inner.updates[0], b=None)]

    def make(self, x: Tensor) -> Any:
        """``[.., out]`` of each."""
        result = F.linear(x.to(self._weight.dtype), self._weight, self._bias).to(x.dtype)
        if self._whole is not None:
            return self._whole.added(result, self._inner.whole(x)).to(x.dtype).split(self._outs, -1)
        parts = zip(self._inner.updates, result.split(self._outs, -1), self._inner.make(x), strict=True)
        return [update.added(part, inner).to(x.dtype) for update, part, inner in parts]

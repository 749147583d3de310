"""What each kind of adapter layer adds to its base while sampling: its tensors, cast and folded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners import adalora, hira, lora, miss, oft, randlora, vera
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from rlvr_lite.methods._computed import ComputedLinear
from rlvr_lite.methods._fast_dora import FastDora
from rlvr_lite.methods._memory import if_small_enough
from rlvr_lite.methods._reflections import ReflectedLinear

__all__ = ["Casts", "Update", "input_of", "update_of"]

_NARROW = 16  # ranks: in fp32 a product with fewer columns sums in another order than one with more


class Casts:
    """Tensors in the type of products; what several layers share is cast once."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        self.dtype, self._model = dtype, model
        self._shared: dict[Any, Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        """The same numbers in that type."""
        return tensor.detach().to(self.dtype)

    def shared(self, part: Tensor, of: Tensor) -> Tensor:
        """The same for what several layers take of one matrix."""
        key = id(of), part.shape
        if key not in self._shared:
            self._shared[key] = self(part)
        return self._shared[key]

    @cached_property
    def room(self) -> bool:
        """Whether updates as large as the weights may be held; a larger model spreads their cost over many rows."""
        size = 0
        for layer in self._model.modules():
            if isinstance(layer, hira.HiraLayer):
                size += layer.in_features * layer.out_features
            elif isinstance(layer, randlora.RandLoraLayer):
                small, r = min(layer.in_features, layer.out_features), next(iter(layer.r.values()))
                size += -(-small // r) * r * small
        return bool(if_small_enough(4 * size))


@dataclass(frozen=True, kw_only=True)
class Update:
    """``y = W x + s (after * (B (between * A x)) + shift) / divide``, or with a ratio ``ratio * W x + B A x + shift``.

    Attributes:
        a: ``[r, in]``; ``None`` where it is a sum over slices, or was stacked with others.
        b: ``[r, out]``, turned; ``None`` where ``a`` is the whole update, ``[out, in]``.
        dtype: of products.
        slices: their length, r.
        scale: s where it could not be folded into B without another rounding.
        between, after: fp32 ``[r]`` and ``[out]`` of VeRA.
        divide: fp32 ``[1]`` of AdaLoRA.
        ratio, shift: fp32 ``[out]``, and ``[out]`` in ``dtype``, of DoRA.
        alone: whether A is not stacked with those of other layers.
    """

    a: Tensor | None
    b: Tensor | None
    dtype: torch.dtype
    slices: int = 0
    scale: float | None = None
    between: Tensor | None = None
    after: Tensor | None = None
    divide: Tensor | None = None
    ratio: Tensor | None = None
    shift: Tensor | None = None
    alone: bool = False

    @property
    def kind(self) -> Any:
        """Equal where layers can be stacked."""
        if self.alone:
            return id(self)
        return self.slices, self.b is None, self.scale, self.ratio is None, self.divide is None

    def summed(self, x: Tensor) -> Tensor:
        """Slices of ``x [.., in]`` added up, ``[.., r]``."""
        x = F.pad(x, (0, -x.shape[-1] % self.slices))
        return x.unflatten(-1, (-1, self.slices)).sum(-2, dtype=torch.float32).to(self.dtype)

    def added(self, result: Tensor, inner: Tensor) -> Tensor:
        """What the base gave, ``[.., out]``, with ``A x [.., r]`` on top, before it is rounded."""
        if self.between is not None:
            inner = (self.between * inner).to(self.dtype)
        if self.b is None:
            update = inner
        elif self.shift is not None:
            update = torch.addmm(self.shift, inner.flatten(0, -2), self.b).view(result.shape)
        else:
            update = inner @ self.b
        if self.ratio is not None:
            return torch.addcmul(update.float(), result, self.ratio)
        if self.after is not None:
            update = self.after * update
        if self.scale is not None:
            update = update * self.scale
        if self.divide is not None:
            update = update / self.divide
        return result + update

    @staticmethod
    def stacked(updates: Sequence[Update], most: int) -> Update | None:
        """Updates of one kind as one, B block-diagonal; ``None`` where they cannot be, or have more than ``most`` ranks."""
        first, bs = updates[0], [u.b for u in updates if u.b is not None]
        if not bs or first.divide is not None or (not first.slices and sum(map(len, bs)) > most):
            return None
        shift = None
        if any(u.shift is not None for u in updates):
            shift = torch.cat(
                [b.new_zeros(b.shape[1]) if u.shift is None else u.shift for u, b in zip(updates, bs, strict=True)]
            )
        return Update(
            a=None,
            b=torch.cat(bs, 1) if first.slices else torch.block_diag(*bs),
            dtype=first.dtype,
            scale=first.scale,
            ratio=None if first.ratio is None else torch.cat([u.ratio for u in updates if u.ratio is not None]),
            shift=shift,
        )


def update_of(layer: Any, cast: Casts) -> Update | None:
    """What a layer adds to its base; ``None`` where it is not of a kind known here."""
    name = layer.active_adapters[0]
    for kind, made in _KINDS.items():
        if isinstance(layer, kind):
            return made(layer, name, cast)
    return None


def input_of(layer: Any, cast: Casts) -> Callable[[Tensor], Tensor] | None:
    """What a layer does to the input of its base, if that is where it acts."""
    dtype = cast.dtype
    if isinstance(layer, ReflectedLinear):
        unit, right = (side.detach().to(dtype) for side in layer.factors())
        return lambda x: x - (x.to(dtype) @ unit) @ right
    if isinstance(layer, oft.layer.Linear):
        rotation: Any = layer.oft_R[layer.active_adapters[0]]
        if rotation.coft or rotation.block_share:
            return None
        blocks = rotation._cayley_batch(
            rotation.weight, rotation.block_size, rotation.use_cayley_neumann, rotation.num_cayley_neumann_terms
        )
        blocks = blocks.detach().to(dtype)

        def turned(x: Tensor) -> Tensor:
            parts = x.to(dtype).reshape(-1, *blocks.shape[:2]).transpose(0, 1)
            return torch.bmm(parts, blocks).transpose(0, 1).reshape(x.shape)

        return turned
    return None


def _lora(layer: Any, name: str, cast: Casts) -> Update | None:
    variant, sides = layer.lora_variant.get(name), (layer.lora_A[name], layer.lora_B[name])
    if any(side.bias is not None for side in sides):
        return None
    a, b = (side.factor if isinstance(side, ComputedLinear) else side.weight for side in sides)
    scale = layer.scaling[name]
    if isinstance(variant, FastDora):
        ratio, b, shift = layer.lora_magnitude_vector[name].fold(layer)
        shift = None if shift is None else cast(shift)
        return Update(a=cast(a), b=cast(b).T, dtype=cast.dtype, ratio=ratio, shift=shift)
    if variant is not None:
        return None
    b, alone = cast(b).T, cast.dtype == torch.float32 and len(a) < _NARROW
    if cast.dtype != torch.float16 and math.frexp(abs(scale))[0] == 0.5:  # a power of two: no digit is lost
        return Update(a=cast(a), b=b if scale == 1 else b * scale, dtype=cast.dtype, alone=alone)
    return Update(a=cast(a), b=b, dtype=cast.dtype, scale=scale, alone=alone)


def _adalora(layer: Any, name: str, cast: Casts) -> Update:
    a, b = layer.lora_A[name] * layer.lora_E[name], layer.lora_B[name]
    scale, divide = layer.scaling[name], layer.ranknum[name] + 1e-5
    return Update(a=cast(a), b=cast(b).T, dtype=cast.dtype, scale=scale, divide=divide)


def _miss(layer: Any, name: str, cast: Casts) -> Update | None:
    block = layer.miss_block[name]
    return (
        None if layer.miss_fn in ("bat", "mini") else Update(a=None, b=cast(block), dtype=cast.dtype, slices=len(block))
    )


def _vera(layer: Any, name: str, cast: Casts) -> Update:
    a, b = layer.vera_A[name], layer.vera_B[name]
    a, b = cast.shared(a[:, : layer.in_features], a), cast.shared(b[: layer.out_features], b)
    between, after = layer.vera_lambda_d[name].detach(), layer.vera_lambda_b[name].detach()
    return Update(a=a, b=b.T, dtype=cast.dtype, between=between, after=after, alone=True)


def _hira(layer: Any, name: str, cast: Casts) -> Update | None:
    if not cast.room or layer.fan_in_fan_out:
        return None
    product = torch.mm(layer.hira_A[name].T, layer.hira_B[name].T).T
    return Update(a=cast(dequantize_module_weight(layer.get_base_layer()) * product), b=None, dtype=cast.dtype)


def _randlora(layer: Any, name: str, cast: Casts) -> Update | None:
    if not cast.room:
        return None
    first, second = layer.get_scaled_bases(name)
    if layer.in_features <= layer.out_features:
        first, second = cast(first), cast.shared(second, layer.randlora_B[name])
    else:
        first, second = cast.shared(first.T, layer.randlora_B[name]).T, cast(second)
    return Update(a=first, b=second.T, dtype=cast.dtype, scale=layer.scaling[name], alone=True)


def _kinds() -> dict[type, Callable[..., Update | None]]:
    found: dict[type, Callable[..., Update | None]] = {
        adalora.SVDLinear: _adalora,
        lora.Linear: _lora,
        miss.layer.MissLinear: _miss,
        vera.layer.Linear: _vera,
        hira.layer.Linear: _hira,
        randlora.layer.Linear: _randlora,
    }
    for module, made in ((adalora, _adalora), (lora, _lora), (vera, _vera), (hira, _hira), (randlora, _randlora)):
        quantised = getattr(module, "Linear4bit", None) or getattr(module, "SVDLinear4bit", None)
        if quantised is not None:
            found[quantised] = made
    return found


_KINDS = _kinds()

"""What a method adds to a base, in numbers, from the base's shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd, prod

from rlvr_lite.analysis.memory import Adapter
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._optimizers import eight_bit
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._spec import Shapes

__all__ = ["footprint"]

_SMALL = 4096  # bitsandbytes keeps the moments of smaller tensors in 32 bits


def footprint(name: str, layout: Layout, config: AdapterConfig, *, device: str, size: int) -> Adapter:
    """The trained and frozen part of a method on a base, and its optimizer's state.

    Args:
        name: of the method.
        layout: of the base.
        config: resolved.
        device: ``cuda`` keeps the moments of large adapters in 8 bits.
        size: bytes of a weight of the base.
    """
    shapes = get(name).expected(layout, config)
    trained = sum(map(prod, shapes.values()))
    frozen = 0
    if name in _FROZEN:
        targets = list(layout.targets(config.targets or ()).values())
        frozen = _FROZEN[name](targets, config.rank or 0, config, size)
    return Adapter(method=name, trained=trained, frozen=frozen, moments=_moments(name, shapes, trained, device))


def _moments(name: str, shapes: Shapes, trained: int, device: str) -> int:
    if name == "lora_fa" or not eight_bit(device, trained):
        return 8 * trained
    large = [n for n in map(prod, shapes.values()) if n >= _SMALL]
    return 8 * (trained - sum(large)) + sum(2 * (n + 4 * -(-n // 256)) for n in large)


Frozen = Callable[[list[Linear], int, AdapterConfig, int], int]


def _a(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    return 4 * sum(r * t.inp for t in targets)


def _b(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    return 4 * sum(r * t.out for t in targets)


def _both(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    return 4 * sum(r * (t.inp + t.out) for t in targets)


def _residual(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The anchors, and the weights once more without their leading part."""
    return _both(targets, r, config, size) + size * sum(t.inp * t.out for t in targets)


def _shared(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """VeRA's two matrices, which all layers share."""
    return 4 * r * (max(t.inp for t in targets) + max(t.out for t in targets))


def _tiny(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    return _both(targets, r, config, size) + 4 * len(targets) * int(config.options["u"]) * r * r


def _random(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """RandLoRA's shared bases, ``A [r, 1, min]`` and ``B [max, bases, r]``: the model's, and what its layers hold."""
    small = max(min(t.inp, t.out) for t in targets)
    large = max(max(t.inp, t.out) for t in targets)
    return 2 * 4 * (r * small + large * -(-small // r) * r)


def _indices(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Row and column numbers (8 bytes each) of what lies above the diagonal of OFT's blocks, in every layer."""
    block = int(config.options["block_size"]) or gcd(32, *(t.inp for t in targets))
    return len(targets) * 2 * 8 * (block * (block - 1) // 2)


#: Bytes that a method adds without training them.
_FROZEN: Mapping[str, Frozen] = {
    "lora_fa": _a,
    "mica": _b,
    "lora_xs": _both,
    "pissa": _both,
    "milora": _both,
    "olora": _both,
    "geora": _both,
    "pissa:residual": _residual,
    "milora:residual": _residual,
    "tinylora": _tiny,
    "vera": _shared,
    "randlora": _random,
    "oft": _indices,
}

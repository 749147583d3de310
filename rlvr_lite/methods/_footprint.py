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

#: Bytes of fp32 that HiRA and RandLoRA may keep of all layers while sampling; a model with more builds them in every call.
_KEPT_AT_MOST = 2**31
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
    targets = list(layout.targets(config.targets or ()).values()) if name in _FROZEN or name in _KEPT else []
    frozen, kept = (of[name](targets, config.rank or 0, config, size) if name in of else 0 for of in (_FROZEN, _KEPT))
    moments = _moments(name, shapes, trained, device)
    return Adapter(method=name, trained=trained, frozen=frozen, moments=moments, kept=kept)


def _moments(name: str, shapes: Shapes, trained: int, device: str) -> int:
    if name == "lora_fa" or not eight_bit(device, trained):
        return 8 * trained
    large = [n for n in map(prod, shapes.values()) if n >= _SMALL]
    return 8 * (trained - sum(large)) + sum(2 * (n + 4 * -(-n // 256)) for n in large)


Bytes = Callable[[list[Linear], int, AdapterConfig, int], int]


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
    """RandLoRA's bases, which all layers share: ``A [r, 1, small]`` and ``B [large, bases, r]``."""
    small, large = sorted((max(t.inp for t in targets), max(t.out for t in targets)))
    return 4 * (r * small + large * -(-small // r) * r)


def _block_size(targets: list[Linear], config: AdapterConfig) -> int:
    return int(config.options["block_size"]) or gcd(32, *(t.inp for t in targets))


def _indices(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Row and column numbers (8 bytes each) of what lies above the diagonal of OFT's blocks, in every layer."""
    block = _block_size(targets, config)
    return len(targets) * 2 * 8 * (block * (block - 1) // 2)


#: Bytes that a method adds without training them.
_FROZEN: Mapping[str, Bytes] = {
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


def _folded(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """DoRA's ratios, its B times them, and what they do to the bias."""
    return 4 * sum((r + 2) * t.out for t in targets)


def _stacked(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Both factors beside their anchors."""
    return 2 * _both(targets, r, config, size)


def _core(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """A product, so in the type that products have."""
    return size * sum(r * t.out for t in targets)


def _unit_columns(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    return _a(targets, r, config, size) if config.options["normalize"] == "always" else 0


def _reflections(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    return 2 * _a(targets, r, config, size)


def _rotations(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    return 4 * _block_size(targets, config) * sum(t.inp for t in targets)


def _dense(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    numbers = sum(t.inp * t.out for t in targets)
    return size * numbers if 4 * numbers <= _KEPT_AT_MOST else 0


def _scaled_bases(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """RandLoRA's smaller basis ``[bases r, small]`` of every layer; the larger one is not copied."""
    smalls = [min(t.inp, t.out) for t in targets]
    found = 4 * sum(-(-small // r) * r * small for small in smalls)
    return found if found <= _KEPT_AT_MOST else 0


#: Bytes that a method computes once and keeps while sampling.
_KEPT: Mapping[str, Bytes] = {
    "dora": _folded,
    "pissa": _stacked,
    "milora": _stacked,
    "olora": _stacked,
    "geora": _stacked,
    "lora_xs": _core,
    "tinylora": _core,
    "nora": _unit_columns,
    "hra": _reflections,
    "oft": _rotations,
    "hira": _dense,
    "randlora": _scaled_bases,
}

"""What a method keeps in memory on a base, in numbers, from the base's shapes.

``PLAIN`` and ``ANCHORED`` are the activations of a block, by what products compute in, as ``rlvr_lite.analysis.memory``
defines them; printed by ``python -m tests.benchmarks.plan calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlvr_lite.analysis.memory import Cost
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Linear

__all__ = [
    "ANCHORED",
    "PLAIN",
    "both_bytes",
    "factor_bytes",
    "if_small_enough",
    "inputs_bytes",
    "outputs_bytes",
    "residual_bytes",
    "stacked_bytes",
]

#: A plain LoRA, and what computes as one.
PLAIN: Mapping[str, Cost] = {
    "nf4": (42.14, 13.42, 0.0, 0.0, 9.7),
    "bf16": (42.14, 13.42, 0.0, 0.0, 9.7),
    "fp32": (33.86, 24.03, 0.0, 0.13, 18.1),
}
#: A LoRA of rank 2r around a frozen start.
ANCHORED: Mapping[str, Cost] = {
    "nf4": (42.57, 13.52, 0.0, 0.0, 9.7),
    "bf16": (42.57, 13.52, 0.0, 0.0, 9.7),
    "fp32": (35.16, 23.98, 0.0, 0.17, 18.1),
}

#: Bytes of fp32 that HiRA and RandLoRA may keep of all layers while sampling; a model with more builds them in every call.
_KEPT_AT_MOST = 2**31


def inputs_bytes(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """A of every target."""
    return 4 * sum(r * t.inp for t in targets)


def outputs_bytes(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """B of every target."""
    return 4 * sum(r * t.out for t in targets)


def both_bytes(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """A and B of every target."""
    return 4 * sum(r * (t.inp + t.out) for t in targets)


def residual_bytes(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The anchors, and the weights once more without their leading part."""
    return both_bytes(targets, r, config, size) + size * sum(t.inp * t.out for t in targets)


def factor_bytes(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """A and B of every target in the type of products."""
    return size * sum(r * (t.inp + t.out) for t in targets)


def stacked_bytes(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Both factors beside their anchors, in the type of products."""
    return 2 * factor_bytes(targets, r, config, size)


def if_small_enough(found: int) -> int:
    """So many bytes, or 0 where they are more than what may be kept while sampling."""
    return found if found <= _KEPT_AT_MOST else 0

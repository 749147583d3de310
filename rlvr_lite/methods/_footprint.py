"""What a method adds to a base, in numbers, from the base's shapes."""

from __future__ import annotations

from math import prod

from rlvr_lite.analysis.memory import Adapter
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._memory import PLAIN
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._spec import Shapes

__all__ = ["footprint"]

_SMALL = 4096  # bitsandbytes keeps the moments of smaller tensors in 32 bits


def footprint(name: str, layout: Layout, config: AdapterConfig, *, size: int, eight_bit: bool = False) -> Adapter:
    """The trained and frozen part of a method on a base, and its optimizer's state.

    Args:
        name: of the method.
        layout: of the base.
        config: resolved.
        size: bytes of a weight of the base.
        eight_bit: whether Adam's moments are held in 8 bits.
    """
    method = get(name)
    shapes = method.expected(layout, config)
    trained = sum(map(prod, shapes.values()))
    targets = list(layout.targets(config.targets).values()) if config.targets else []
    cast = 0 if method.trains_base and size == 4 else size * trained
    return Adapter(
        method=name,
        trained=trained,
        frozen=method.frozen(targets, config.rank or 0, config, size) if targets else 0,
        moments=_moments(shapes, trained) if eight_bit else 8 * trained,
        kept=method.kept(targets, config.rank or 0, config, size) if method.kept else cast,
        block={**PLAIN, **method.memory},
        trains_base=method.trains_base,
    )


def _moments(shapes: Shapes, trained: int) -> int:
    large = [n for n in map(prod, shapes.values()) if n >= _SMALL]
    return 8 * (trained - sum(large)) + sum(2 * (n + 4 * -(-n // 256)) for n in large)

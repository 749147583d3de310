"""Sizes of a decoder, as far as memory depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Shape"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder, as ``bases.shape_of`` has counted them on its model.

    Attributes:
        vocabulary: V.
        hidden: H.
        intermediate: I, inside a gated feed-forward part as wide as the linear layers of a block.
        layers: L.
        parameters: all numbers; a tied head counts once.
        buffers: bytes beside them, such as masks and tables of positions.
        matrices: linear layers but the head, which 4 bits hold, as pairs of size and how many there are.
        caches: of each layer the numbers it caches a token, and how many tokens it keeps (0: all).
        states: numbers a row that linear attention and convolutions keep, whatever the length.
        repeats: copies that attention makes of a layer's keys and values for a token beside a mask (before transformers 5.23).
        packs: whether a group's prompt is computed once in training.
        activations: of a block, counted: ``bases.with_activations`` says how.
        config: the contents of its ``config.json``.
    """

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    parameters: int
    matrices: tuple[tuple[int, int], ...]
    caches: tuple[tuple[int, int], ...]
    buffers: int = 0
    states: int = 0
    repeats: int = 0
    packs: bool = True
    activations: Mapping[str, tuple[float, ...]] | None = None
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("matrices", "caches"):  # JSON knows lists only
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))
        if self.activations is not None:
            object.__setattr__(self, "activations", {k: tuple(v) for k, v in self.activations.items()})

    @property
    def block(self) -> float:
        """Numbers in the matrices of a block."""
        return sum(size * count for size, count in self.matrices) / self.layers

    def cached(self, tokens: int) -> int:
        """Numbers in the cache of a row after so many tokens, states left out."""
        return sum(size * (min(tokens, kept) if kept else tokens) for size, kept in self.caches)

    @property
    def widest(self) -> int:
        """Numbers that one layer caches a token."""
        return max((size for size, _ in self.caches), default=0)

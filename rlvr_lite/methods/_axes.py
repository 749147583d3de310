"""A side of a layer as the product of several axes, as QuanTA sees it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations

__all__ = ["axes_of", "numbers", "pairs"]


@cache
def axes_of(size: int, count: int) -> tuple[int, ...] | None:
    """``size`` as ``count`` factors of at least 2, largest first, whose pairs have the fewest numbers; ``None`` if it has none.

    >>> axes_of(1536, 4), axes_of(8960, 4), axes_of(4096, 3), axes_of(62, 3)
    ((8, 8, 6, 4), (14, 10, 8, 8), (16, 16, 16), None)
    """
    return min(_splits(size, count, size), key=lambda axes: (numbers(axes), axes), default=None)


def numbers(axes: tuple[int, ...]) -> int:
    """Entries of a square matrix on every pair of axes.

    >>> numbers((16, 8, 8, 4))
    43008
    """
    return sum((axes[m] * axes[n]) ** 2 for m, n in pairs(len(axes)))


def pairs(count: int) -> list[tuple[int, int]]:
    """Every pair of axes in the order in which they are acted on: those with the last axis first.

    >>> pairs(3)
    [(1, 2), (0, 2), (0, 1)]
    """
    return [(count - 1 - n, count - 1 - m) for m, n in combinations(range(count), 2)]


def _splits(size: int, count: int, most: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield from [(size,)] if 2 <= size <= most else []
        return
    for first in range(2, min(most, size // 2 ** (count - 1)) + 1):
        if size % first == 0 and first**count >= size:  # the others are no larger
            yield from ((first, *rest) for rest in _splits(size // first, count - 1, first))

"""Randomness that belongs to a row: one 64-bit key a completion, one uniform number a (key, step).

A row's numbers depend on its key alone, so a sample does not change when the batch is split, permuted or resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["Uniforms", "row_keys"]

_BLOCK = 256  # uniforms drawn ahead a row; a multiple of the four words that one Philox counter yields


def row_keys(seed: int, *parts: str | int, rows: int) -> list[int]:
    """``rows`` 64-bit keys that are a function of ``(seed, *parts, row number)``, and of nothing else.

    Args:
        seed: of the run.
        *parts: what tells this use of randomness from others, such as ``"train", generation_batch, round``.
        rows: how many keys; the first n of more rows are the same n keys.

    >>> row_keys(0, "train", 3, rows=2) == row_keys(0, "train", 3, rows=5)[:2]
    True
    >>> len(set(row_keys(0, "train", 3, rows=4) + row_keys(0, "eval", 3, rows=4)))
    8
    """
    stem = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=32).digest()
    return [
        int.from_bytes(hashlib.blake2b(row.to_bytes(8, "little"), key=stem, digest_size=8).digest(), "little")
        for row in range(rows)
    ]


class Uniforms:
    """Uniform numbers in [0, 1): number ``step`` of the Philox-4x64 stream of each row's key.

    The stream is counter based (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3), so any block of it
    can be drawn without the ones before, and only rows still alive are drawn.
    """

    def __init__(self, keys: Sequence[int]):
        self._keys = list(keys)
        self._block = -1
        self._drawn = np.empty((len(self._keys), _BLOCK))

    def at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """The numbers of the given rows at ``step``.

        Args:
            step: position in the completion, from 0; steps must not go back.
            rows: int64 ``[R]``, row numbers that only shrink from call to call.

        Returns:
            float64 ``[R]``.
        """
        block, column = divmod(step, _BLOCK)
        if block != self._block:
            for row in rows.tolist():
                stream = np.random.Philox(key=self._keys[row], counter=block * _BLOCK // 4)
                self._drawn[row] = np.random.Generator(stream).random(_BLOCK)
            self._block = block
        return self._drawn[rows, column]

"""Randomness that belongs to a row: one 64-bit key a completion, one uniform number a (key, step).

A row's numbers depend on its key alone, so a sample does not change when the batch is split, permuted or resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["UNIFORM_BLOCK", "row_keys", "uniforms"]

UNIFORM_BLOCK = 256  # numbers drawn at once a row; a multiple of the four words that one Philox counter yields


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


def uniforms(keys: Sequence[int], block: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 ``[R, 256]``: block ``block`` of the Philox-4x64 stream of each key.

    The stream is counter based (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3), so a block is drawn
    without those before it, and only for rows still alive.

    >>> bool((uniforms([7, 8], 1)[1:] == uniforms([8], 1)).all())
    True
    """
    counter = block * UNIFORM_BLOCK // 4
    streams = (np.random.Philox(key=key, counter=counter) for key in keys)
    return np.stack([np.random.Generator(stream).random(UNIFORM_BLOCK) for stream in streams])

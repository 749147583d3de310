"""Randomness that belongs to a row: one 64-bit key a completion, one uniform number a (key, step).

A row's numbers depend on its key alone, so a sample does not change when the batch is split, permuted or resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["UNIFORM_BLOCK", "Numbers", "row_keys", "uniforms"]

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


class Numbers:
    """The numbers of the rows at hand, moved to their device in blocks.

    Args:
        keys: one a row.
        device: where they are needed.
    """

    def __init__(self, keys: Sequence[int], device: torch.device):
        self._keys, self._device = list(keys), device
        self._drawn: Tensor | None = None

    def at(self, step: int) -> Tensor:
        """float64 ``[R]``; steps are asked for in turn."""
        if self._drawn is None or step % UNIFORM_BLOCK == 0:
            drawn = torch.from_numpy(uniforms(self._keys, step // UNIFORM_BLOCK))
            self._drawn = drawn.to(self._device, non_blocking=True)
        return self._drawn[:, step % UNIFORM_BLOCK]

    def keep(self, rows: Sequence[int], at: Tensor) -> None:
        """Only the given rows go on."""
        self._keys = [self._keys[i] for i in rows]
        self._drawn = None if self._drawn is None else self._drawn[at]

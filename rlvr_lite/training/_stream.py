"""A stream of rows that is read by number, as the order of the prompts asks for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlvr_lite.errors import UserError

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = ["Stream"]

_KEPT = 4096  # rows that can be asked for again without reading the stream from its start


class Stream:
    """Row i of a stream that begins again, reshuffled, where it ends.

    Args:
        dataset: read from its start, and once more from there for a row that is long gone.
        shuffle: through the buffer of ``datasets``, as TRL does.
        seed: of the shuffle.
    """

    def __init__(self, dataset: IterableDataset, *, shuffle: bool, seed: int):
        self.dataset = dataset.shuffle(seed=seed) if shuffle else dataset
        self._restart()

    def _restart(self) -> None:
        self._epoch = self._read = 0
        self._kept: deque[Any] = deque(maxlen=_KEPT)
        self._rows = self._of_epoch()

    def _of_epoch(self) -> Iterator[Any]:
        self.dataset.set_epoch(self._epoch)
        return iter(self.dataset)

    def __len__(self) -> int:
        return 2**62  # nobody knows; this far no run gets

    def __getitem__(self, index: int) -> Any:
        if index < self._read - len(self._kept):
            self._restart()
        began = self._read
        while self._read <= index:
            try:
                row = next(self._rows)
            except StopIteration:
                if (self._read == began and self._epoch and not self._kept) or not self._read:
                    raise UserError("train_dataset is empty") from None
                self._epoch += 1
                self._rows = self._of_epoch()
                continue
            self._kept.append(row)
            self._read += 1
        return self._kept[index - self._read]

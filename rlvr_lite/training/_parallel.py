"""The processes of one run that ``accelerate launch`` started, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor
from torch import distributed as dist

__all__ = ["Processes", "connect"]

_PATIENCE = timedelta(days=7)  # the others wait while the main process evaluates

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """How many processes share the work, and which of them this is. Alone, every method is free.

    Attributes:
        rank: number of this process; 0 is the main one, which alone writes files.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a list: runs as even as they go, in the order of the ranks; it may be empty.

        >>> [list(Processes(rank, 2).share("abc")) for rank in (0, 1)]
        [['a', 'b'], ['c']]
        >>> Processes(2, 3).share("ab")
        ''
        """
        size = -(-len(items) // self.count)
        return items[self.rank * size : (self.rank + 1) * size]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of the ranks, at every process."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is so at any process."""
        return any(self.gather(flag))

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, equal to the last bit at all of them."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def same(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by the main process's."""
        for tensor in tensors if self.count > 1 else ():
            dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


def connect() -> Processes:
    """The processes of this run, connected (gloo on a CPU, NCCL on GPUs, a GPU each); one where nothing launched more."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes)

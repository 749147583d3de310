"""Work on fixed buffers, recorded once as a CUDA graph and replayed: one launch in place of one an operator."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from rlvr_lite.errors import first_line

__all__ = ["Graphs"]

_REFUSED: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_RECORDING = ("cuda",)  # devices whose work can be recorded
_LOG = logging.getLogger(__name__)


@cache
def _stream(index: int) -> Any:
    """The side stream on which everything of a card is captured: each has a workspace of its own."""
    return torch.cuda.Stream(index)


class Graphs:
    """Calls ``work(*key)``; on a GPU the second call of a key records it, and later ones replay the record.

    The first call of a key runs as it is, so that what libraries set up and autocast keeps lies outside of the record. All
    records share one pool of memory: nothing that ``work`` makes may be read after it but the buffers it writes to.

    Args:
        work: reads nothing back to the host, and works in place on tensors that outlive the records.
        model: whose work it is. One that cannot be recorded is announced once, and called as it is from then on.
        device: where its tensors lie.
    """

    def __init__(self, work: Callable[..., None], model: nn.Module, device: torch.device):
        self._work, self._model, self._device = work, model, device
        self._found: dict[tuple[int, ...], Any] = {}
        self._on = device.type in _RECORDING

    def __call__(self, *key: int) -> None:
        """Run, record or replay."""
        graph = self._found.get(key)
        if graph is None and self._on and key in self._found and self._model not in _REFUSED:
            graph = self._found[key] = self._recorded(key)
        if graph is None:
            self._found[key] = None
            self._work(*key)
        else:
            graph.replay()

    def _recorded(self, key: tuple[int, ...]) -> Any:
        """A graph of this call, which runs nothing; ``None`` where it cannot be made."""
        index = torch.cuda.current_device() if self._device.index is None else self._device.index
        side, current, graph = _stream(index), torch.cuda.current_stream(self._device), torch.cuda.CUDAGraph()
        side.wait_stream(current)
        try:
            with torch.cuda.stream(side):
                graph.capture_begin(pool=self._pool(), capture_error_mode="thread_local")
                try:
                    self._work(*key)
                finally:
                    graph.capture_end()
        except Exception as error:  # of whatever operator may not be recorded; ending a broken record fails once more
            cause = error.__context__ or error
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            _REFUSED.add(self._model)
            kind, said = type(self._model).__name__, first_line(cause)
            _LOG.warning(
                "%s: its decoding step cannot be a CUDA graph (%s): sampling launches every operator", kind, said
            )
            return None
        finally:
            current.wait_stream(side)
        return graph

    def _pool(self) -> Any:
        """The memory of those recorded before."""
        made = next((graph for graph in self._found.values() if graph is not None), None)
        return torch.cuda.graph_pool_handle() if made is None else made.pool()

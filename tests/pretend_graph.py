"""Pretend CUDA graphs over the memory of the CPU: operators recorded with the very tensors they were given, and replayed.

What a real graph cannot do fails here as well: reading a value back raises while it is recorded, a number that Python
passed in stays what it was, a tensor that was replaced since goes on being read and written in its old place, and nothing
survives a replay but what lay outside of the record.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique_dim", "_unique2")


def _storages(values: Any) -> dict[int, Tensor]:
    return {x.untyped_storage()._cdata: x for x in tree_leaves(values) if isinstance(x, Tensor)}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[tuple[int, Tensor]]]] = []
        self._inside: set[int] = set()
        self._before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.split("::")[1] in _READS:
            raise RuntimeError("pretend graph: operation not permitted when stream is capturing")
        given = _storages((args, kwargs))
        if func._schema.is_mutable:
            for key, tensor in given.items():
                if key not in self._inside and key not in self._before:
                    storage = tensor.untyped_storage()
                    self._before[key] = storage, storage.clone()
        made = func(*args, **kwargs)
        new = [
            (i, x)
            for i, x in enumerate(tree_leaves(made))
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in given
        ]
        self._inside.update(x.untyped_storage()._cdata for _, x in new)
        self.calls.append((func, args, kwargs, new))
        return made

    def undo(self) -> None:
        """Recording runs nothing."""
        for storage, before in self._before.values():
            storage.copy_(before)


class PretendGraph:
    """Stands for ``torch.cuda.CUDAGraph``.

    Attributes:
        made: of all graphs, since the context began.
    """

    made: ClassVar[list[PretendGraph]] = []

    def __init__(self) -> None:
        self.replays = 0

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """Record from here on."""
        self._pool, self._recorder = pool, _Recorder()
        self._recorder.__enter__()

    def capture_end(self) -> None:
        """Record no more."""
        self._recorder.__exit__(None, None, None)
        self._recorder.undo()
        PretendGraph.made.append(self)

    def pool(self) -> Any:
        """As it was given."""
        return self._pool

    def replay(self) -> None:
        """Run what was recorded, each result into its old place."""
        self.replays += 1
        hidden = torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch()  # it is one launch
        with hidden[0], hidden[1], torch.autocast("cpu", enabled=False):
            for func, args, kwargs, new in self._recorder.calls:
                found = tree_leaves(func(*args, **kwargs))
                for i, old in new:
                    old.copy_(found[i])
            for _, _, _, new in self._recorder.calls:
                for _, old in new:
                    old.fill_(float("nan") if old.is_floating_point() else 0)


@contextmanager
def pretend_graphs() -> Iterator[list[PretendGraph]]:
    """Within this context PyTorch records such graphs; they are listed."""
    stream = types.SimpleNamespace(wait_stream=lambda other: None, synchronize=lambda: None, cuda_stream=0)
    PretendGraph.made = []
    with mock.patch.multiple(
        torch.cuda,
        CUDAGraph=PretendGraph,
        Stream=lambda *_: stream,
        stream=lambda _: nullcontext(),
        current_stream=lambda *_: stream,
        current_device=lambda: 0,
        graph_pool_handle=lambda: (0, 1),
    ):
        yield PretendGraph.made

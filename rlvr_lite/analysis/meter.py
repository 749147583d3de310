"""Counting the memory of every live storage, operator by operator, on fake tensors as on real ones."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_lite.analysis._recall import Recall

__all__ = ["Meter", "dense_weight", "materialise"]

_READ = torch.ops.aten._local_scalar_dense.default
_DEVICE = torch.ops.prim.device.default
_PICK = torch.ops.aten.index.Tensor
_GROUPED = torch.ops.aten._grouped_mm.default
_INFERRING = (torch.ops.aten.arange, torch.ops.aten.full)  # their dtype follows from their arguments

#: ``(operator, result) -> kind`` of a storage that an operator has made, or ``None`` for the current kind.
KindOf = Callable[[Any, Tensor], str | None]


class Meter(TorchDispatchMode):
    """Counts bytes of live storages by kind, and keeps the highest total of each phase with its kinds.

    Fake and real tensors may be mixed: an operator whose tensors are all real is carried out, so that masks and positions
    keep their values; all others have shapes only. A number read from a fake tensor is 0, or ``False``.

    Args:
        kind_of: names the kind of a new storage.

    Attributes:
        now: live bytes by kind.
        peaks: of each phase, the live bytes by kind at its highest total.
        transient: bytes a kernel takes for itself, by operator name: ``f(*arguments) -> bytes``.
    """

    def __init__(self, kind_of: KindOf | None = None, transient: Mapping[str, Callable[..., int]] | None = None):
        super().__init__()
        self.now: Counter[str] = Counter()
        self.peaks: dict[str, dict[str, int]] = {}
        self.transient = dict(transient or {})
        self.operators = 0
        self._kind_of = kind_of
        self._recall = Recall()
        self._live: dict[int, tuple[str, int, Any]] = {}
        self._total = 0
        self._phase: str | None = None
        self._kind = "activations"

    # ---- what is counted --------------------------------------------------------------------------------------

    def add(self, tensor: Tensor, kind: str | None = None) -> None:
        """Count a tensor's storage as of this kind, once; a storage that is known changes its kind."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._live.get(key)
        if known is not None:
            if kind is not None and known[0] != kind:
                self.now[known[0]] -= known[1]
                self.now[kind] += known[1]
                self._live[key] = (kind, *known[1:])
            return
        size, kind = storage.nbytes(), kind or self._kind
        self._live[key] = (kind, size, weakref.ref(storage, lambda _: self._free(key)))
        self.now[kind] += size
        self._total += size
        self._note(0)

    def _free(self, key: int) -> None:
        kind, size, _ = self._live.pop(key)
        self.now[kind] -= size
        self._total -= size

    def _note(self, extra: int) -> None:
        """Remember this moment if the phase has not seen a higher one."""
        if self._phase is None:
            return
        peak = self.peaks[self._phase]
        if self._total + extra > peak.get("total", 0):
            seen = {kind: size for kind, size in self.now.items() if size}
            seen["activations"] = seen.get("activations", 0) + extra
            self.peaks[self._phase] = seen | {"total": self._total + extra}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Within this context peaks belong to the phase; entering one twice goes on with it."""
        before, self._phase = self._phase, name
        self.peaks.setdefault(name, {})
        self._note(0)
        try:
            with self:
                yield
        finally:
            self._phase = before

    def enter(self, name: str) -> None:
        """From here on peaks belong to this phase, until the surrounding one ends or another is entered."""
        self._phase = name
        self.peaks.setdefault(name, {})

    @contextmanager
    def kind(self, name: str) -> Iterator[None]:
        """Within this context new storages are of this kind."""
        before, self._kind = self._kind, name
        try:
            yield
        finally:
            self._kind = before

    # ---- operators --------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):  # asked more often than all operators together
            return args[0].fake_device
        kwargs = kwargs or {}
        self.operators += 1
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        fake = any(isinstance(x, FakeTensor) or x.is_meta for x in tensors)
        if fake and func is _READ:
            return {torch.bool: False}.get(args[0].dtype, 0.0 if args[0].is_floating_point() else 0)
        if fake and func is _PICK:  # a mask of real values has a known number of entries
            args = (args[0], [p for i in args[1] for p in _positions(i)])
        if fake and func is _GROUPED:
            func = _grouped
        if not fake and (tensors or _counts(func, args, kwargs)):
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
        elif tensors and all(isinstance(x, FakeTensor) for x in tensors):
            out = self._recall(func, args, kwargs)
        else:
            out = func(*args, **kwargs)
        for tensor in _tensors((out,)):
            if tensor.untyped_storage()._cdata not in self._live:
                self.add(tensor, self._kind_of(func, tensor) if self._kind_of else None)
        name = func.name() if self.transient and func is not _grouped else ""
        if name in self.transient:
            self._note(self.transient[name](*args, **kwargs))
        return out


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Every tensor in arguments or results, also inside lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _counts(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a factory makes positions or a mask, which must have their values, rather than features."""
    dtype = kwargs.get("dtype")
    if dtype is None:
        made_of = args[1:2] if func is torch.ops.aten.full.default else args
        return func.overloadpacket in _INFERRING and not any(isinstance(x, float) for x in made_of)
    return not dtype.is_floating_point


def _grouped(a: Tensor, b: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """The product of every expert; without values torch knows it in 16 bits only."""
    half = torch.bfloat16
    return _GROUPED(a.to(half), b.to(half), *rest, **kwargs).to(a.dtype)


def _positions(index: Tensor | None) -> list[Any]:
    """A mask of real values as the positions it selects, one tensor a dimension; anything else as it is."""
    if index is None or isinstance(index, FakeTensor) or index.dtype != torch.bool:
        return [index]
    with unset_fake_temporarily():
        return list(index.nonzero(as_tuple=True))


def dense_weight(a: Tensor, b: Tensor, shape: Any, *rest: Any, **kwargs: Any) -> int:
    """Bytes of the weight that a 4-bit product unpacks for itself, and of its block scales, in fp32."""
    return prod(shape) * a.element_size() + -(-prod(shape) // 64) * 4


def materialise(model: nn.Module) -> None:
    """Replace every tensor of a model on meta by an empty one on the CPU: a fake one, inside a ``FakeTensorMode``."""
    made: dict[int, Any] = {}
    stored: dict[Any, Tensor] = {}

    def fake(tensor: Tensor) -> Any:
        if id(tensor) not in made:
            # A parameter and a plain tensor may share memory.
            place = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape)
            if place not in stored:
                stored[place] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            empty = stored[place]
            made[id(tensor)] = (
                nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
            )
        return made[id(tensor)]

    owners: list[dict[str, Any]] = []
    for module in model.modules():
        owners += [module._parameters, module._buffers, module.__dict__]
    found = [(owner, n, x) for owner in owners for n, x in owner.items() if isinstance(x, Tensor) and x.is_meta]
    # All are held until the last is replaced: a freed address would be given out again.
    for owner, name, tensor in found:
        owner[name] = fake(tensor)

"""What an operator makes of fake tensors depends on their shapes alone: it is worked out once and then remembered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

__all__ = ["Recall"]


class _Made(NamedTuple):
    """How one result comes about: argument ``source`` itself, a view of its storage, or (``source`` is None) a new storage."""

    source: int | None
    itself: bool
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


class Recall:
    """Runs operators on fake tensors; from the second time on for the same shapes without asking torch.

    torch keeps a cache of its own, whose key takes longer than all else in a run on fake tensors.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[type | None, list[_Made]] | None] = {}

    def __call__(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """``func(*args, **kwargs)``, whose tensors are all fake and of one mode."""
        key, sources = _key(func, args, kwargs)
        if key not in self._known:
            stored = _storages(sources)
            out = func(*args, **kwargs)
            after, changed = _key(func, args, kwargs)
            same = key == after and stored == _storages(changed)
            self._known[key] = _recipe(out, sources, stored) if same else None
            return out
        recipe = self._known[key]
        if recipe is None:
            return func(*args, **kwargs)
        container, parts = recipe
        made = [_make(part, sources) for part in parts]
        return made[0] if container is None else container(made)


def _key(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> tuple[Hashable, list[FakeTensor]]:
    """What a result depends on, and the tensors among the arguments."""
    sources: list[FakeTensor] = []
    return (func, _frozen((args, *kwargs.items()), sources)), sources


def _storages(tensors: list[FakeTensor]) -> list[int]:
    return [x.untyped_storage()._cdata for x in tensors]


def _frozen(value: Any, sources: list[FakeTensor]) -> Hashable:
    """All of an argument that a shape may depend on; tensors are also gathered in ``sources``."""
    if isinstance(value, FakeTensor):
        sources.append(value)
        return (value.dtype, value.shape, value.stride(), value.storage_offset())
    if isinstance(value, list | tuple):
        return tuple(_frozen(x, sources) for x in value)
    return (type(value), value)  # 1, 1.0 and True are equal, and make other dtypes


def _recipe(out: Any, sources: list[FakeTensor], stored: list[int]) -> tuple[type | None, list[_Made]] | None:
    """How to make ``out`` again; ``None`` where that cannot be said, and torch has to be asked each time."""
    container = type(out) if type(out) in (list, tuple) else None
    results = list(out) if container else [out]
    if not results or not all(isinstance(x, FakeTensor) for x in results):
        return None
    parts, fresh = [], set()
    for x in results:
        storage = x.untyped_storage()
        kin = [i for i, known in enumerate(stored) if known == storage._cdata]
        if len(kin) > 1 or storage._cdata in fresh or (not kin and storage.nbytes() != _span(x)):
            return None
        if not kin:
            fresh.add(storage._cdata)
        itself = bool(kin) and sources[kin[0]] is x
        parts.append(_Made(kin[0] if kin else None, itself, x.dtype, x.shape, x.stride(), x.storage_offset()))
    return container, parts


def _span(x: Tensor) -> int:
    """Bytes of a storage that begins with the first element and ends with the last."""
    if not x.numel():
        return 0
    last = sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    return int(x.element_size() * (x.storage_offset() + last + 1))


def _make(part: _Made, sources: list[FakeTensor]) -> FakeTensor:
    if part.itself:
        return sources[part.source]  # type: ignore[index]
    mode = sources[0].fake_mode
    storage = None if part.source is None else sources[part.source].untyped_storage()
    with in_kernel_invocation_manager(mode):
        elem = torch.empty_strided(part.shape, part.stride, dtype=part.dtype, device="meta")
        if storage is not None:
            elem.set_(storage, part.offset, part.shape, part.stride)
    return FakeTensor(mode, elem, sources[0].fake_device)

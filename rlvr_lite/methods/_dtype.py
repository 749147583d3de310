"""PEFT layers that hand fp32 on to a 16-bit base, corrected."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn

__all__ = ["keep_dtype"]


def keep_dtype(model: nn.Module, kind: type[nn.Module]) -> None:
    """Let every layer of ``kind`` return the dtype it was given: fp32 adapters otherwise break bf16 and fp16 bases."""
    for module in model.modules():
        if isinstance(module, kind):
            module.__class__ = _keeping(type(module))  # type: ignore[arg-type]


@cache
def _keeping(kind: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return kind.forward(self, x, *args, **kwargs).to(x.dtype)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__})

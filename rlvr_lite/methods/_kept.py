"""What is computed once while sampling, and dropped when training goes on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["Keeping", "state_of"]

T = TypeVar("T")

_STEPS = 0


def _count(*_: Any) -> None:
    global _STEPS
    _STEPS += 1


# Fused optimizers change tensors without raising their version.
register_optimizer_step_post_hook(_count)


def state_of(*tensors: Tensor) -> Hashable:
    """A key that changes whenever one of the tensors may have changed."""
    return (_STEPS, *((t.data_ptr(), t._version, t.dtype) for t in tensors))


class Keeping(nn.Module):
    """A module that keeps one computed value between the tokens of a rollout.

    Sampling is evaluation mode without gradients; the value is taken anew when a tensor it depends on may have changed.
    """

    _kept: tuple[Hashable, Any] | None = None

    def kept(self, compute: Callable[[], T], *tensors: Tensor) -> T:
        """``compute()``, or while sampling what it gave before if none of ``tensors`` has changed since."""
        if self.training or torch.is_grad_enabled():
            self._kept = None
            return compute()
        key = (state_of(*tensors), torch.is_autocast_enabled(tensors[0].device.type))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, compute())
        return self._kept[1]

    def train(self, mode: bool = True) -> Self:
        """Forget what was kept, then as every module."""
        self._kept = None
        return super().train(mode)

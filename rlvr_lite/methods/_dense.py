"""Methods whose update is as large as the weight: it is kept while sampling, instead of being built for every token."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.hira.layer import HiraLayer
from peft.tuners.randlora.layer import RandLoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from rlvr_lite.methods._kept import Keeping
from rlvr_lite.methods._lora import ADAPTER

__all__ = ["keep_updates"]


class _KeptHira(Keeping):
    """``y = W x + D x`` with ``D [out, in] = W * (B A)``, entry by entry, kept while sampling; training is PEFT's."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [.., in]`` to ``[.., out]``, in the dtype of x."""
        if self.disable_adapters or self.merged or self.training or torch.is_grad_enabled():
            return super().forward(x, *args, **kwargs)
        base, a, b = self.get_base_layer(), self.hira_A[ADAPTER], self.hira_B[ADAPTER]
        update = self.kept(lambda: dequantize_module_weight(base) * (b @ a), a, b, base.weight)
        result = base(x, *args, **kwargs)
        return (result + F.linear(x.to(update.dtype), update)).to(x.dtype)


class _KeptRandLora(Keeping):
    """PEFT's layer with its two scaled bases, ``[min, in]`` and ``[out, min]``, kept while sampling."""

    def get_scaled_bases(self: Any, adapter: str, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """The side next to the input and the side next to the output."""
        names = ("randlora_A", "randlora_B", "randlora_lambda", "randlora_gamma")
        scaled = super().get_scaled_bases  # type: ignore[misc]
        return self.kept(lambda: scaled(adapter, device=device), *(getattr(self, name)[adapter] for name in names))


def keep_updates(model: nn.Module) -> None:
    """Let every HiRA and RandLoRA layer of a fresh model keep its update while sampling."""
    for module in model.modules():
        if isinstance(module, HiraLayer | RandLoraLayer):
            module.__class__ = _keeping(module.__class__)


@cache
def _keeping(kind: type[nn.Module]) -> type[nn.Module]:
    part = _KeptHira if issubclass(kind, HiraLayer) else _KeptRandLora
    return type(kind.__name__, (part, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})

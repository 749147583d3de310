"""DeLoRA in fp16: PEFT divides by ``|A_i| |B_i|`` in one step, which fp16 cannot hold while B is close to zero."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.delora.layer import DeloraLinear
from torch import Tensor

from rlvr_lite.methods._lora import ADAPTER

__all__ = ["NormalisedLinear"]

_SHORTEST = 1e-4  # as PEFT has it


class NormalisedLinear(DeloraLinear):
    """``y = W x + bias + (lambda / r) B^ A^ (w * x)`` with rows of ``A^`` and columns of ``B^`` of length one."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [.., in]`` to ``[.., out]``, in the dtype of x."""
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        a, b = self.delora_A[ADAPTER], self.delora_B[ADAPTER]
        a = a / a.norm(dim=1, keepdim=True).clamp(min=_SHORTEST) * self.delora_w_norm[ADAPTER]
        b = b / b.norm(dim=0).clamp(min=_SHORTEST)
        given = x if torch.is_autocast_enabled(x.device.type) else x.to(a.dtype)
        inner = F.linear(given, a) * (self.delora_lambda[ADAPTER] / self.r[ADAPTER])
        return result + F.linear(inner, b).to(result.dtype)

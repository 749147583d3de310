"""GraLoRA on any base: PEFT adds its update in place to what the base returns, which a 4-bit layer does not allow."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.gralora import layer
from torch import Tensor

from rlvr_lite.methods._lora import ADAPTER

__all__ = ["GranularLinear"]


class GranularLinear(layer.Linear):
    """``y = W x + bias + s D x``, where block (i, j) of ``D`` has rank r / k (arXiv 2505.20355, eq. 7)."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [.., in]`` to ``[.., out]``, in the dtype of x."""
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        a, b, k = self.gralora_A[ADAPTER], self.gralora_B[ADAPTER], self.gralora_k[ADAPTER]
        inner = torch.einsum("...ni,nir->...nr", x.to(a.dtype).unflatten(-1, (k, -1)), a)
        # Every block of the output gets a k-th of what every block of the input was projected to.
        mixed = inner.unflatten(-1, (k, -1)).transpose(-2, -3).flatten(-2)
        update = torch.einsum("...nr,nro->...no", mixed, b).flatten(-2)
        return result + (self.scaling[ADAPTER] * update).to(result.dtype)

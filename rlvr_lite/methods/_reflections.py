"""HRA without a dense product: reflections act on the input, so any base layer will do."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.hra.layer import HRALinear
from torch import Tensor

from rlvr_lite.methods._lora import ADAPTER

__all__ = ["ReflectedLinear", "compact_reflections"]


def compact_reflections(u: Tensor) -> tuple[Tensor, Tensor]:
    """``H_1 H_2 .. H_r = I - U T U^T`` with ``H_i = I - 2 u_i u_i^T`` (compact WY form, Schreiber and Van Loan 1989).

    Args:
        u: ``[in, r]``, one vector of any length a column.

    Returns:
        ``U [in, r]`` with columns of length one, and the upper triangular ``T [r, r]``:
        ``T^-1 = 1/2 I + striu(U^T U)``.
    """
    unit = u / u.norm(dim=0)
    gram = unit.T @ unit
    inverse = torch.triu(gram, 1) + 0.5 * torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
    return unit, inverse


class ReflectedLinear(HRALinear):
    """``y = W (H_1 .. H_r x) + bias`` with the reflections applied to x, instead of to a dense copy of W."""

    def factors(self: Any) -> tuple[Tensor, Tensor]:
        """``U [in, r]`` and ``(U T)^T [r, in]``."""
        unit, inverse = compact_reflections(self.hra_u[ADAPTER])
        return unit, torch.linalg.solve_triangular(inverse.T, unit.T, upper=False)

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [.., in]`` to ``[.., out]``, in the dtype of x."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        unit, right = self.factors()
        inner = x.to(unit.dtype)
        # x and W are used as rows here: x (H_1 .. H_r)^T = x - (x U) (U T)^T.
        reflected = inner - (inner @ unit) @ right
        return self.base_layer(reflected.to(x.dtype), *args, **kwargs)

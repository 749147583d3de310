"""BOFT's rotation applied to the input factor by factor, without a dense ``[in, in]`` matrix."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from peft import BOFTConfig
from peft.tuners.boft import layer
from torch import Tensor, nn

from rlvr_lite.methods._lora import ADAPTER

__all__ = ["ButterflyLinear", "cayley"]


def cayley(r: Tensor) -> Tensor:
    """Rotations ``(I - K) (I + K)^-1`` of ``K = (R - R^T) / 2`` (arXiv 2311.06243, §3), ``[.., b, b]``.

    >>> cayley(torch.zeros(1, 2, 2)).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    skew = 0.5 * (r - r.mT)
    one = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
    return torch.linalg.solve(one + skew, one - skew, left=False)


@lru_cache(maxsize=16)
def _orders(inp: int, b: int, m: int) -> Tensor:
    """The permutations ``[m, in]`` of PEFT, on the CPU also where a model is made on the meta device."""
    with torch.device("cpu"):
        orders = [layer.BOFTLayer.block_butterfly_perm(None, inp, inp // b // 2**i, b // 2, m - 1) for i in range(m)]
        return torch.stack([torch.as_tensor(order) for order in orders]).long()


class ButterflyLinear(layer.Linear):
    """``y = s W (B_1 .. B_m x) + bias``: each ``B_i`` rotates blocks of b coordinates that a permutation brings together."""

    def update_layer(self: Any, adapter_name: str, config: BOFTConfig, **kwargs: Any) -> None:
        """Zero rotations and unit scales; sizes were checked before."""
        b, m = config.boft_block_size, config.boft_n_butterfly_factor
        blocks = self.in_features // b
        self.boft_dropout.update(nn.ModuleDict({adapter_name: nn.Identity()}))
        self.boft_R[adapter_name] = nn.Parameter(torch.zeros(m, blocks, b, b))
        self.boft_s[adapter_name] = nn.Parameter(torch.ones(self.out_features, 1))
        self.boft_block_size[adapter_name], self.boft_block_num[adapter_name] = b, blocks
        self._move_adapter_to_device_of_base_layer(adapter_name)
        order = _orders(self.in_features, b, m)
        for name, numbers in (("boft_order", order), ("boft_back", order.argsort(-1))):
            self.register_buffer(name, numbers.to(self.boft_R[adapter_name].device), persistent=False)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def rotated(self: Any, x: Tensor) -> Tensor:
        """``x [.., in]`` with every factor applied, in the dtype of the rotations."""
        rotations = cayley(self.boft_R[ADAPTER])
        x = x.to(rotations.dtype)
        for i in reversed(range(len(rotations))):
            parts = x[..., self.boft_back[i]].unflatten(-1, rotations.shape[1:3])
            x = torch.einsum("...nb,nbc->...nc", parts, rotations[i]).flatten(-2)[..., self.boft_order[i]]
        return x

    def get_delta_weight(self: Any, adapter: str) -> tuple[Tensor, Tensor]:
        """The rotation as a matrix ``[in, in]``, and the scale ``[out, 1]``."""
        one = torch.eye(self.in_features, device=self.boft_R[adapter].device)
        return self.rotated(one), self.boft_s[adapter]

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [.., in]`` to ``[.., out]``, in the dtype of x."""
        if self.disable_adapters or self.merged:
            return self.base_layer(x, *args, **kwargs)
        result = self.base_layer(self.rotated(x).to(x.dtype), *args, **kwargs)
        bias = getattr(self.base_layer, "bias", None)
        scale = self.boft_s[ADAPTER].squeeze(-1)
        scaled = result * scale if bias is None else (result - bias) * scale + bias
        return scaled.to(result.dtype)

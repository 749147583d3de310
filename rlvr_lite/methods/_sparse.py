"""SHiRA beside its base: the sparse update is multiplied on its own, so no entry of it is rounded into a 16-bit weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.shira import layer
from torch import Tensor, nn

from rlvr_lite.methods._lora import ADAPTER

__all__ = ["SparseLinear", "draw_places", "sparse_layers"]


class _SparseProduct(torch.autograd.Function):
    """``x D^T`` with ``D [out, in]`` zero but for a few entries: built when it is needed, never kept for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, places: Tensor, out: int) -> Tensor:
        ctx.save_for_backward(x, values, places)
        ctx.out = out
        return F.linear(x, _dense(values.to(x.dtype), places, out, x.shape[-1]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, values, places = ctx.saved_tensors
        back = _dense(values.to(x.dtype), places, ctx.out, x.shape[-1]) if ctx.needs_input_grad[0] else None
        whole = grad.flatten(0, -2).T @ x.flatten(0, -2)
        return None if back is None else grad @ back, whole[places[0], places[1]].to(values.dtype), None, None


def _dense(values: Tensor, places: Tensor, out: int, inp: int) -> Tensor:
    return values.new_zeros(out, inp).index_put_((places[0], places[1]), values)


class SparseLinear(layer.Linear):
    """``y = W x + bias + D x``.

    Attributes:
        places: rows and columns ``[2, n]`` of the trained entries.
    """

    places: Tensor

    def keep(self: Any, places: Tensor) -> None:
        """Train these entries."""
        self.shira_indices[ADAPTER] = places  # where PEFT looks for them
        self.register_buffer("places", places, persistent=False)

    def get_delta_weight(self: Any, adapter: str) -> Tensor:
        """``D [out, in]``."""
        return _dense(self.shira_weight[adapter], self.places, self.out_features, self.in_features)

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [.., in]`` to ``[.., out]``, in the dtype of x."""
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        values = self.shira_weight[ADAPTER]
        return result + _SparseProduct.apply(x, values, self.places, self.out_features).to(result.dtype)


def draw_places(out: int, inp: int, n: int, seed: int, device: torch.device) -> Tensor:
    """Rows and columns ``[2, n]`` of the entries that PEFT's random mask draws for a weight ``[out, in]``, row by row."""
    if device.type == "meta":
        return torch.empty(2, n, dtype=torch.int32, device="meta")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(out * inp, generator=generator, device="cpu")[:n].sort().values
    return torch.stack([drawn // inp, drawn % inp]).int().to(device)


def sparse_layers(model: nn.Module) -> Iterator[tuple[str, SparseLinear]]:
    """Every layer of SHiRA, by its name."""
    for name, module in model.named_modules():
        if isinstance(module, SparseLinear):
            yield name, module

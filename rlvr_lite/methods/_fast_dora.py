"""DoRA without the dense product: the exact row norm of ``W + s B A`` from small matrices, folded into B.

``|W_i + s B_i A|^2 = |W_i|^2 + 2 s B_i . (A W_i^T) + s^2 B_i (A A^T) B_i^T``: the first term is taken once, the second is one
pass of r rows through the frozen layer, the rest is ``r x r``. Parameters, files and merging stay PEFT's.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from rlvr_lite.methods._lora import ADAPTER, lora_layers

__all__ = ["FastDora", "FastMagnitude", "moved", "steady", "use_fast_dora"]

#: Below this share of the squared norm left after cancellation, the cheap sum has lost digits.
_LEAST_LEFT = 1e-2
#: Numbers of a weight that are held in fp64 at a time.
_CHUNK = 2**21


class FastMagnitude(DoraLinearLayer):
    """PEFT's magnitude with a cheap norm, folded into B."""

    weight: nn.Parameter
    _squares: tuple[Hashable, Tensor] | None = None
    _norm: tuple[Hashable, Tensor] | None = None
    _steady = False

    def row_norm(self, base: Any, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """``|W_i + scale B_i A|`` for every output i, ``[out]`` in fp32, without gradient (DoRA, arXiv 2402.09353, §4.3).

        Args:
            base: the frozen linear layer, of any precision.
            a: ``[r, in]``.
            b: ``[out, r]``.
            scale: s.
        """
        key = tuple((x.data_ptr(), x._version) for x in (base.weight, a, b)) if self._steady else None
        if key is None or self._norm is None or self._norm[0] != key:
            self._norm = key, self._taken(base, a, b, scale)
        return self._norm[1]

    @torch.no_grad()
    def _taken(self, base: Any, a: Tensor, b: Tensor, scale: float) -> Tensor:
        squares = self._base_squares(base)
        with torch.autocast(a.device.type, enabled=False):
            cross = _through(base, a).double()
            a2, b2 = a.double(), b.double()
            left = squares + 2 * scale * (b2 * cross.T).sum(1) + scale**2 * ((b2 @ (a2 @ a2.T)) * b2).sum(1)
            if bool((left < _LEAST_LEFT * squares).any()):
                return _dense_norm(base, a, b, scale)
            return left.sqrt().float()

    def _base_squares(self, base: Any) -> Tensor:
        """``|W_i|^2 [out]`` in fp64, taken anew only when the weight was replaced or edited."""
        key = base.weight.data_ptr(), base.weight._version, base.weight.dtype
        if self._squares is None or self._squares[0] != key:
            weight = dequantize_module_weight(base).detach().to(_compute_dtype(base))
            parts = [rows.double().square().sum(1) for rows in weight.split(max(1, _CHUNK // weight.shape[1]))]
            self._squares = (key, torch.cat(parts))
        return self._squares[1]

    def fold(self, layer: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """``(m / n [out], (m / n) s B [out, r], (1 - m / n) bias [out])`` with the magnitude m and the norm n."""
        base, a, b = layer.get_base_layer(), layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        scale = layer.scaling[ADAPTER]
        ratio = self.weight.float() / self.row_norm(base, a, b, scale)
        shift = None if base.bias is None else (1 - ratio) * base.bias
        return ratio, b * (ratio * scale)[:, None], shift


class FastDora(DoraLinearVariant):
    """``(m / n) (W x + s B A x) + bias`` as one multiply-add over what the base layer and a folded B return."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any) -> Tensor:
        """``x [.., in]`` and the base's ``result [.., out]`` to the adapted output, summed in fp32."""
        ratio, b, shift = module.lora_magnitude_vector[active_adapter].fold(module)
        update = F.linear(module.lora_A[active_adapter](x), b, shift)
        return torch.addcmul(update.float(), result, ratio).to(result.dtype)


def use_fast_dora(model: nn.Module, blank: bool = False) -> None:
    """Let every DoRA layer of a fresh model use the cheap norm, and start its magnitude at that norm; ``blank``: at zero.

    PEFT takes the first magnitude in the base's dtype, which on a bf16 base is 0.4 % off and moves the policy at step 0.
    """
    with torch.no_grad():
        for _, layer in lora_layers(model):
            magnitude = layer.lora_magnitude_vector[ADAPTER]
            magnitude.__class__ = FastMagnitude
            layer.lora_variant[ADAPTER] = FastDora()
            if blank:
                norm = torch.zeros_like(magnitude.weight, dtype=torch.float32)
            else:
                a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
                norm = magnitude.row_norm(layer.get_base_layer(), a, b, layer.scaling[ADAPTER])
            magnitude.weight = nn.Parameter(norm, requires_grad=magnitude.weight.requires_grad)


@contextmanager
def steady(model: nn.Module) -> Iterator[None]:
    """Within this context the weights of a model stay as they are, so that DoRA takes its norms once.

    They are kept for the next such context: the norm has no gradient, and one serves all passes of an optimizer step,
    recomputed ones too. Whoever changes weights in between calls :func:`moved`.
    """
    found = [module for module in model.modules() if isinstance(module, FastMagnitude)]
    for magnitude in found:
        magnitude._steady = True
    try:
        yield
    finally:
        for magnitude in found:
            magnitude._steady = False


def moved(model: nn.Module) -> None:
    """The weights of a model have changed, which kernels that write to raw memory do not say."""
    for module in model.modules():
        if isinstance(module, FastMagnitude):
            module._norm = None


def _dense_norm(base: Any, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The same norm from the dense matrix, as PEFT takes it, where an update that cancels W leaves the sum inexact."""
    weight = dequantize_module_weight(base).detach().to(_compute_dtype(base))
    return (weight.double() + scale * (b.double() @ a.double())).norm(dim=1).float()


def _through(base: Any, a: Tensor) -> Tensor:
    """``A W^T [r, out]``, whatever the weight is held in."""
    rows = base(a.to(_compute_dtype(base)))
    return rows if base.bias is None else rows - base.bias


def _compute_dtype(base: Any) -> torch.dtype:
    return getattr(base, "compute_dtype", None) or base.weight.dtype

"""What training did to each weight of the base: exactly low-rank where the method is, dense otherwise."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.hira.layer import HiraLayer
from peft.tuners.ia3.layer import IA3Layer
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.road.layer import RoadLayer, _apply_road
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.tuners.vera.layer import VeraLayer
from torch import Tensor, nn

from rlvr_lite.analysis.spectrum import Update
from rlvr_lite.errors import UserError
from rlvr_lite.methods._attachment import attachment
from rlvr_lite.methods._lora import ADAPTER, PREFIX
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._spectral import ResidualLinear
from rlvr_lite.methods._starts import weight_of

__all__ = ["updates"]

Factors = tuple[Tensor, Tensor, float]
_CHUNK = 1024


def updates(model: nn.Module, base: nn.Module | None = None) -> Iterator[Update]:
    """One :class:`rlvr_lite.analysis.spectrum.Update` for every weight the method changes, in the model's order.

    Named by module; a bias that IA3 scales along is named ``<module>.bias``.

    The LoRA family (PiSSA and its kin as the delta from their start), AdaLoRA and VeRA give factors; DoRA, IA3, OFT and
    the others the dense difference between the effective and the base weight, in fp64 and only when asked for;
    ln_tuning gives vectors. The residual variants are set against the untouched weight W, so the rounding of their
    base to 16 bits is not part of the update.

    Args:
        model: with a method attached.
        base: the untouched base, for a method that trains the base, which keeps none itself.

    Raises:
        UserError: nothing is attached, or the method trains the base and none is given.
    """
    found = attachment(model)
    if get(found.method).trains_base:
        if base is None:
            raise UserError(f"{found.method} keeps no base to compare with: load it again and pass it as base")
        yield from _of_full(model, base, found.build.layout.linears, found.build.layout.norms)
        return
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and not isinstance(module.get_base_layer(), BaseTunerLayer):
            yield _of_layer(name.removeprefix(PREFIX), module)
            bias, now = getattr(module.get_base_layer(), "bias", None), _adapted_bias(module)
            if now is not None and bias is not None:
                yield Update(f"{name.removeprefix(PREFIX)}.bias", bias, dense=functools.partial(_difference, now, bias))


def _of_full(
    model: nn.Module, base: nn.Module, linears: Mapping[str, Any], norms: Mapping[str, int]
) -> Iterator[Update]:
    """Linear layers as matrices and norms as vectors; embeddings and biases are left out."""
    for name in (*linears, *norms):
        now, before = model.get_parameter(f"{name}.weight"), base.get_parameter(f"{name}.weight")
        if now.shape != before.shape:
            raise UserError(
                f"{name} has shape {tuple(now.shape)}, in the given base {tuple(before.shape)}: another base"
            )
        yield Update(name, before, dense=functools.partial(_difference, now, before))


def _difference(now: Tensor, before: Tensor) -> Tensor:
    return now.detach().to(before.device).double() - before.detach().double()


def _adapted_bias(layer: Any) -> Tensor | None:
    """The bias of a layer whose method acts on the whole output, if it has one."""
    bias = getattr(layer.get_base_layer(), "bias", None)
    if bias is None:
        return None
    if isinstance(layer, IA3Layer) and not layer.is_feedforward:
        return layer.ia3_l[ADAPTER].flatten() * bias
    if isinstance(layer, RoadLayer):
        theta, stretch = layer.road_theta[ADAPTER], layer.road_alpha[ADAPTER]
        return _apply_road(layer.variant[ADAPTER], layer.group_size[ADAPTER], theta, stretch, bias[None].float())[0]
    return None


def _of_layer(name: str, layer: Any) -> Update:
    if isinstance(layer, LNTuningLayer):
        now, before = layer.ln_tuning_layers[ADAPTER].weight, layer.get_base_layer().weight
        return Update(name, before, dense=functools.partial(_difference, now, before))
    weight = functools.partial(_base_weight, layer)
    factors = _factors(layer)
    if factors is not None:
        return Update(name, weight, factors)
    if isinstance(layer, LoraLayer):
        return Update(name, weight, dense=functools.partial(_dora_update, layer))
    if isinstance(layer, IA3Layer | HiraLayer):
        return Update(name, weight, dense=functools.partial(_scaled_update, layer))
    return Update(name, weight, dense=functools.partial(_forward_update, layer))


def _base_weight(layer: Any) -> Tensor:
    """W ``[out, in]`` in fp32, dequantised; of a residual layer the weight it started from."""
    return layer.original.detach().float() if isinstance(layer, ResidualLinear) else weight_of(layer.get_base_layer())


def _factors(layer: Any) -> Factors | None:
    """(B, A, scale) of a layer whose update is exactly low-rank."""
    with torch.no_grad():
        if isinstance(layer, AdaLoraLayer):
            # PEFT's forward divides by the rank it began with, and by this guard against zero.
            scale = layer.scaling[ADAPTER] / (float(layer.ranknum[ADAPTER].item()) + 1e-5)
            return layer.lora_B[ADAPTER].detach(), (layer.lora_A[ADAPTER] * layer.lora_E[ADAPTER]).detach(), scale
        if isinstance(layer, LoraLayer) and ADAPTER not in layer.lora_variant:
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            return b.detach(), a.detach(), float(layer.scaling[ADAPTER])
        if isinstance(layer, VeraLayer):
            b, d = layer.vera_lambda_b[ADAPTER].double(), layer.vera_lambda_d[ADAPTER].double()
            right = layer.vera_A[ADAPTER][:, : layer.in_features].to(d.device).double() * d[:, None]
            left = layer.vera_B[ADAPTER][: layer.out_features].to(d.device).double() * b[:, None]
            return left.detach(), right.detach(), 1.0
    return None


@torch.no_grad()
def _dora_update(layer: Any) -> Tensor:
    """``m / |W + s B A| (W + s B A) - W``, norms by row (arXiv 2402.09353, eq. 5)."""
    weight = weight_of(layer.get_base_layer()).double()
    a, b = layer.lora_A[ADAPTER].weight.double(), layer.lora_B[ADAPTER].weight.double()
    direction = weight + layer.scaling[ADAPTER] * (b @ a)
    magnitude = layer.lora_magnitude_vector[ADAPTER].weight.double()
    return direction * (magnitude / direction.norm(dim=1))[:, None] - weight


@torch.no_grad()
def _scaled_update(layer: Any) -> Tensor:
    """``(l - 1) W`` entry by entry: IA3's l is ``[out, 1]`` or ``[1, in]``, HiRA's is ``1 + B A``."""
    weight = weight_of(layer.get_base_layer()).double()
    if isinstance(layer, HiraLayer):
        return layer.hira_B[ADAPTER].double() @ layer.hira_A[ADAPTER].double() * weight
    return (layer.ia3_l[ADAPTER].double() - 1) * weight


@torch.no_grad()
def _forward_update(layer: Any) -> Tensor:
    """The difference between what a copy of the layer in fp64 makes of the unit vectors, and its base weight."""
    base = layer.get_base_layer()
    weight = weight_of(base).double()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64, device=weight.device)
    plain.weight.copy_(weight)
    # The copy shares nothing with the live layer, and stands on W alone, whatever the base is held in.
    twin = copy.deepcopy(layer, {id(base): plain}).double().train().eval()
    rows = torch.eye(weight.shape[1], dtype=torch.float64, device=weight.device).split(_CHUNK)
    return torch.cat([twin(part) for part in rows]).T - weight

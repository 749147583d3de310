"""What an adapter needs so that Unsloth's kernels and its decode path see it.

Training calls each layer, unless one of Unsloth's fused LoRA functions was put in its place. Decoding reads weights
directly, and calls a layer only where it recognises an adapter that is not a plain LoRA.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import MethodType
from typing import Any

import torch
from peft.tuners.ln_tuning.layer import LNTuningLayer
from torch import Tensor, nn

from rlvr_lite.bases._decode_check import check_decode

__all__ = ["HOST", "UnslothHost", "forget_casts", "guard_decode"]

#: Attribute of a base under which ``rlvr_lite.methods.attach`` finds its host.
HOST = "_rlvr_lite_host"

_ATTENTION_INPUT = ("q_proj", "k_proj", "v_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


class UnslothHost:
    """Prepares an Unsloth base for a method, and proves afterwards that the method is really there."""

    name = "unsloth"

    def clear(self, model: nn.Module) -> None:
        """Take out fused functions that an earlier adapter left in the layers."""
        plain = importlib.import_module("unsloth.models.llama")
        for block in _blocks(model):
            block.self_attn.apply_qkv = plain.original_apply_qkv
            block.self_attn.apply_o = plain.original_apply_o
            block.mlp.__dict__.pop("forward", None)

    def settle(self, attached: nn.Module, *, fuse: bool) -> None:
        """Make an adapter visible, fuse it where the kernels can, and check it.

        Args:
            attached: the base with its adapter.
            fuse: whether the adapter is a plain LoRA, ``W x + s B A x`` with ``lora_A.weight`` and ``lora_B.weight``.

        Raises:
            UserError: Unsloth ignores the adapter somewhere.
        """
        for module in [*attached.modules()]:
            if isinstance(module, LNTuningLayer):
                kind: Any = type(module)
                module.__class__ = _norm_view(kind)
        if fuse:
            _fuse(attached)
        check_decode(attached)


def guard_decode() -> None:
    """Let every layer whose forward is not PEFT's plain LoRA be called when decoding, whatever it is made of.

    Unsloth looks for DoRA, biases and foreign layers, but not for LoRA variants (KaSA) nor for layers of this package
    that compute their base weight, and would decode those as plain LoRA.
    """
    kernels: Any = importlib.import_module("unsloth.kernels.utils")
    known = kernels._has_non_lora_adapter
    if getattr(known, "rlvr_lite", False):
        return

    def guarded(proj: Any) -> bool:
        kind: Any = type(proj)
        return known(proj) or bool(proj.__dict__.get("lora_variant")) or kind.__module__.startswith("rlvr_lite.")

    guarded.rlvr_lite = True  # type: ignore[attr-defined]
    kernels._has_non_lora_adapter = guarded


def forget_casts() -> None:
    """Make Unsloth cast adapters anew: its copies are keyed by optimizer steps, and weights also change by loading."""
    kernels: Any = importlib.import_module("unsloth.kernels.utils")
    kernels._OPTIMIZER_STEPS += 1


def _blocks(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.model.layers


def _fuse(model: nn.Module) -> None:
    kernels: Any = importlib.import_module("unsloth.kernels")
    for block in _blocks(model):
        attention, mlp = block.self_attn, block.mlp
        if _fusable(attention, _ATTENTION_INPUT):
            attention.apply_qkv = kernels.apply_lora_qkv
        if _fusable(attention, ("o_proj",)):
            attention.apply_o = kernels.apply_lora_o
        if _fusable(mlp, _MLP):
            mlp.forward = MethodType(kernels.apply_lora_mlp_swiglu, mlp)


def _fusable(parent: Any, names: tuple[str, ...]) -> bool:
    """Whether the kernels take these layers: all with a LoRA, none with a bias, the base in 16 or 4 bits."""
    layers = [getattr(parent, name) for name in names]
    return all(
        hasattr(layer, "lora_A") and layer.get_base_layer().bias is None and _narrow(layer.get_base_layer().weight)
        for layer in layers
    )


def _narrow(weight: Tensor) -> bool:
    return weight.dtype != torch.float32


@cache
def _norm_view(kind: type) -> type:
    """A tuned norm that also answers as a norm, with ``weight`` and ``variance_epsilon``: Unsloth never calls norms."""

    def current(self: Any) -> Any:
        return self.base_layer if self.disable_adapters else self.ln_tuning_layers[self.active_adapters[0]]

    members = {
        "weight": property(lambda self: current(self).weight),
        "variance_epsilon": property(lambda self: self.base_layer.variance_epsilon),
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
    }
    return type(kind.__name__, (kind,), members)

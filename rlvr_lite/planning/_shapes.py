"""A policy of real shapes without a byte of weights: built on meta, its tensors then replaced by fake ones."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from rlvr_lite import bases, grpo, methods
from rlvr_lite.analysis import meter
from rlvr_lite.config import AdapterConfig, scale_of
from rlvr_lite.methods import Attachment, remember

__all__ = ["materialise", "policy_on_meta"]


def policy_on_meta(config: Any, precision: str, method: str, adapter: AdapterConfig, compute: torch.dtype) -> nn.Module:
    """The base of a transformers configuration with a method on it, every tensor on the meta device.

    Args:
        config: of the base.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``nf4``.
        method: its name.
        adapter: its size and place; missing values take the defaults, as where a method is attached.
        compute: dtype of what is not held in 4 bits.
    """
    # The meter answers whoever asks for a number; meta knows no autocast.
    with torch.device("meta"), meter.Meter(), mock.patch.object(torch, "autocast", return_value=nullcontext()):
        base = bases.blank(config, dtype=compute)
        grpo.remove_dropout(base)
        layout = methods.Layout.of_model(base)
        adapter = methods.resolve(method, adapter, scale_of(layout.parameters), layout)
        if precision == "nf4":
            _quantise(base, compute)
        base.requires_grad_(False)
        names = frozenset(n for n, _ in (*base.named_parameters(), *base.named_buffers()))
        build = methods.Build(adapter=adapter, layout=layout, total_steps=100, seed=0, blank=True)
        model = methods.get(method).build(base, build)
        remember(model, Attachment(method, build, names, "", ""))
        grpo.output_head(model)  # checks the architecture now; later there would be no values to compare
    return model


def _quantise(model: nn.Module, compute: torch.dtype) -> None:
    """Every linear layer but the head as bitsandbytes' 4-bit layer, as the loader makes them."""
    from bitsandbytes.nn import Linear4bit
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()  # type: ignore[operator]
    for name, module in [*model.named_modules()]:
        turned = isinstance(module, Conv1D)
        if (type(module) is nn.Linear or turned) and module is not head:
            parent, _, child = name.rpartition(".")
            new = Linear4bit(
                module.nx if turned else module.in_features,
                module.nf if turned else module.out_features,
                bias=module.bias is not None,
                compute_dtype=compute,
                compress_statistics=True,
                quant_type="nf4",
            )
            if new.bias is not None:
                new.bias = nn.Parameter(new.bias.to(compute), requires_grad=False)
            new.support_avx512bf16_for_cpu = False
            new._parameters["weight"] = _packed(new)
            setattr(model.get_submodule(parent), child, new)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]


def materialise(model: nn.Module) -> None:
    """Replace every tensor of a model on meta by an empty one on the CPU: a fake one, inside a ``FakeTensorMode``."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module._parameters["weight"] = _packed(module)
    meter.materialise(model)


def _packed(layer: Any) -> nn.Parameter:
    """The 4-bit weight of a layer, with bitsandbytes' double-quantised state, as :class:`Params4bit` holds them."""
    from bitsandbytes.functional import QuantState

    numbers = layer.in_features * layer.out_features
    blocks = -(-numbers // 64)
    scales = QuantState(
        absmax=torch.empty(-(-blocks // 256)), blocksize=256, code=torch.empty(256), dtype=torch.float32
    )
    state = QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8),
        shape=torch.Size([layer.out_features, layer.in_features]),
        code=torch.empty(16),
        blocksize=64,
        quant_type="nf4",
        dtype=layer.compute_dtype,
        offset=torch.empty(()),
        state2=scales,
    )
    weight = nn.Parameter(torch.empty(-(-numbers // 2), 1, dtype=torch.uint8), requires_grad=False)
    facts = {"quant_state": state, "bnb_quantized": True, "quant_type": "nf4", "blocksize": 64}
    for name, value in (facts | {"compress_statistics": True, "quant_storage": torch.uint8}).items():
        setattr(weight, name, value)
    layer.quant_state = state
    weight.__class__ = _params4bit(type(weight))  # type: ignore[assignment] # PEFT tells a 4-bit weight by the name of its class
    return weight


@cache
def _params4bit(kind: type[Tensor]) -> type[Tensor]:
    """A class of that name; bitsandbytes' own cannot hold a fake tensor."""
    return type("Params4bit", (kind,), {"__deepcopy__": lambda self, memo: self})

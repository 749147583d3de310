"""Unsloth's backbone behind the interface that sampling and scoring call: transformers' own.

Left to itself Unsloth's forward drops the padding mask in training, cuts inputs that are too long, expects tuples for a
cache, and decodes fast only through the causal model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as remembered
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from rlvr_lite.bases._unsloth_host import forget_casts
from rlvr_lite.grpo import TreeMask

__all__ = ["host_backbone"]

#: Where an attention layer of Unsloth's keeps the keys and values of the sequence it is decoding.
_BUFFERS = ("paged_attention", "paged_attention_K", "paged_attention_V")


def host_backbone(model: Any, decode_step: Callable[..., Any]) -> None:
    """Give the backbone of a model that Unsloth loaded transformers' contract.

    Args:
        model: the causal language model.
        decode_step: Unsloth's forward of one cached token, ``f(causal_lm, ids, pairs, position_ids, attention_mask)``.
    """
    model.model._unsloth_keep_padding_mask = True
    kind: Any = type(model.model)
    model.model.__class__ = _hosted(kind, decode_step)


@remembered
def _hosted(kind: type, decode_step: Callable[..., Any]) -> type:
    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,  # named, so that scoring can say no: Unsloth's default is to keep one
        **kwargs: Any,
    ) -> Any:
        if isinstance(attention_mask, TreeMask):
            raise ValueError("Unsloth's attention knows no tree masks")
        shown = attention_mask if attention_mask is not None else input_ids
        if shown is not None and shown.shape[-1] > self.max_seq_length:
            raise ValueError(f"{shown.shape[-1]} tokens are more than the model's {self.max_seq_length}")
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        kwargs["use_cache"] = use_cache
        if not isinstance(past_key_values, Cache):
            return kind.forward(self, **given, past_key_values=past_key_values, **kwargs)  # type: ignore[attr-defined]
        if not past_key_values.get_seq_length():
            forget_casts()
            output = kind.forward(self, **given, **kwargs)  # type: ignore[attr-defined]
            _fill(past_key_values, output.past_key_values)
        else:
            output = _decode(self, decode_step, past_key_values, given)
        return BaseModelOutputWithPast(last_hidden_state=output.last_hidden_state, past_key_values=past_key_values)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _fill(cache: Cache, pairs: Any) -> None:
    cache.layers = [DynamicLayer() for _ in pairs]
    for layer, (keys, values) in zip(cache.layers, pairs, strict=True):
        layer.update(keys, values)


@torch.no_grad()
def _decode(backbone: Any, step: Callable[..., Any], cache: Cache, given: dict[str, Any]) -> Any:
    """One token a row. The cache is the truth: where its rows were picked or repeated, Unsloth's buffers are made anew."""
    if given["input_ids"].shape[1] != 1:
        raise ValueError("Unsloth decodes one token at a time: feed a longer text without a cache")
    for block, layer in zip(backbone.layers, cache.layers, strict=True):
        _drop_foreign_buffers(block.self_attn, layer.keys)
    causal_lm = SimpleNamespace(model=backbone, config=backbone.config, max_seq_length=backbone.max_seq_length)
    output = step(
        causal_lm,
        given["input_ids"],
        [(layer.keys, layer.values) for layer in cache.layers],
        position_ids=given["position_ids"],
        attention_mask=given["attention_mask"],
    )
    for layer, (keys, values) in zip(cache.layers, output.past_key_values, strict=True):
        layer.keys, layer.values = keys, values
    return output


def _drop_foreign_buffers(attention: Any, keys: Tensor) -> None:
    held = attention.__dict__.get(_BUFFERS[0])
    if held is not None and held.untyped_storage().data_ptr() != keys.untyped_storage().data_ptr():
        for name in _BUFFERS:
            attention.__dict__.pop(name, None)

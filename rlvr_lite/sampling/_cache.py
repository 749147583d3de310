"""A key-value cache that grows in place: transformers' own copies the whole history at every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

from rlvr_lite.grpo import takes

__all__ = ["growing_cache", "released", "takes_own_mask"]

_STEP = 64  # tokens of room added at a time, at least
_GROWTH = 1.25  # and at least this factor


class _GrowingLayer(DynamicLayer):
    """Keys and values ``[B, heads, T, head_dim]`` as views of buffers with room for more tokens."""

    keys: Tensor
    values: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new tokens and return everything cached."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < new:
            room = max(new + _STEP, int(new * _GROWTH)) if old else new
            self._buffers = (
                self._enlarged(self.keys, key_states, old, room),
                self._enlarged(self.values, value_states, old, room),
            )
        keys, values = self._buffers
        keys[..., old:new, :] = key_states
        values[..., old:new, :] = value_states
        self.keys, self.values = keys[..., :new, :], values[..., :new, :]
        return self.keys, self.values

    @staticmethod
    def _enlarged(cached: Tensor | None, states: Tensor, length: int, room: int) -> Tensor:
        buffer = states.new_empty(*states.shape[:-2], room, states.shape[-1])
        if length:
            assert cached is not None
            buffer[..., :length, :] = cached
        return buffer

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the given rows, with their room; more rows than there were get their room at the next token."""
        if self._buffers is None or len(beam_idx) > len(self.keys):
            super().reorder_cache(beam_idx)
            self._buffers = None
            return
        length = self.get_seq_length()
        keys, values = (_selected(buffer, beam_idx, length) for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]


def _selected(buffer: Tensor, indices: Tensor, length: int) -> Tensor:
    """The given rows of a buffer; only what is filled is copied."""
    rows = buffer.new_empty(len(indices), *buffer.shape[1:])
    torch.index_select(buffer[..., :length, :], 0, indices, out=rows[..., :length, :])
    return rows


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache whose plain attention layers grow in place; sliding and linear layers stay transformers' own.

    Rows are repeated and taken out by ``reorder_cache``, transformers' interface for beams: the only one that layers of
    every kind have.
    """
    cache = DynamicCache(config=config)
    cache.layers = [_GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def takes_own_mask(backbone: Any, cache: Cache) -> bool:
    """Whether one row of booleans a sequence is all that attention has to be told, so that transformers need not look.

    Not with a sliding window or a state, with biases made from a 2-D mask (ALiBi), or with attention other than sdpa.
    """
    config = backbone.config
    return (
        all(type(layer) is _GrowingLayer for layer in cache.layers)
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and not getattr(config, "alibi", False)
        and takes(backbone, "position_ids")
    )


def released(layer: Any) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer that grows, which holds nothing afterwards."""
    keys, values = layer.keys, layer.values
    layer.keys = layer.values = layer._buffers = None
    layer.is_initialized = False
    return keys, values

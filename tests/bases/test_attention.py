"""Attention stays in fused kernels on every card."""

from __future__ import annotations

import types

import pytest
import torch
from transformers.integrations import sdpa_attention

from rlvr_lite import bases


@pytest.mark.parametrize(
    ("capability", "dtype", "grouped"),
    [
        ((7, 5), torch.float16, False),
        ((8, 6), torch.float32, False),
        ((8, 6), torch.bfloat16, True),
        ((9, 0), torch.float16, True),
    ],
)
def test_keys_are_repeated_where_no_fused_kernel_takes_grouped_heads(capability, dtype, grouped, monkeypatch):
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)  # given back afterwards
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    bases.keep_attention_fused()
    key = types.SimpleNamespace(shape=(1, 1, 4, 16), dtype=dtype, is_cuda=True, device="cuda:0")
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key) is grouped
    assert not sdpa_attention.use_gqa_in_sdpa(torch.ones(1, 1, 4, 4), key, key)
    key.is_cuda = False
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key)

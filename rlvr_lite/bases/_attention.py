"""Attention in fused kernels on every card, with the models of transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.integrations import sdpa_attention

__all__ = ["keep_attention_fused"]

_GROUPED = sdpa_attention.use_gqa_in_sdpa


def keep_attention_fused() -> None:
    """Have transformers repeat keys and values where no fused kernel takes grouped heads, as it does beside a mask.

    Without a mask grouped heads reach one in 16 bits from compute capability 8.0 on only; elsewhere PyTorch would hold all
    scores in fp32. A CPU is left as it is.
    """
    sdpa_attention.use_gqa_in_sdpa = _asked


def _asked(mask: Tensor | None, key: Tensor, *rest: Any) -> bool:
    return bool(_GROUPED(mask, key, *rest)) and _has_grouped_kernel(key)


def _has_grouped_kernel(key: Tensor) -> bool:
    half = key.dtype in (torch.float16, torch.bfloat16)
    return not key.is_cuda or (half and torch.cuda.get_device_capability(key.device) >= (8, 0))

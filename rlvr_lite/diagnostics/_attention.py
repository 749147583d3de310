"""Which kernel computes the attention of each kind of call; the fallback without a kernel holds all scores at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from rlvr_lite import grpo, sampling
from rlvr_lite.diagnostics._check import Finding
from rlvr_lite.diagnostics._numbers import gradient
from rlvr_lite.diagnostics._subject import Subject

__all__ = ["attention_kernels"]


def attention_kernels(subject: Subject) -> Finding:
    """Of prefill, decoding and training passes, with and without padding, on blocks shaped as the paper's base has them."""
    subject.needs_card()
    base = subject.large(1)
    found: dict[str, str] = {}
    with subject.policy(base) as model:
        for padded in (False, True):
            mark = "padded" if padded else "of one length"
            prompts, keys = subject.prompts(3, padded=padded), sampling.row_keys(0, rows=6)
            with subject.autocast(base.compute_dtype):
                kernels = _kernels(subject.rollout, model, prompts, 2, 3, keys)
            found |= {f"prompts {mark}": kernels}
        for kind, packer in (("plain", None), ("packed", grpo.Packer())):
            found[f"training {kind}"] = _kernels(gradient, subject, model, base.compute_dtype, packer)
    slow = [kind for kind, kernels in found.items() if "math" in kernels]
    figure = "; ".join(f"{kind}: {kernels}" for kind, kernels in found.items())
    return Finding(figure, "none by math", not slow, "upgrade PyTorch; long completions take much memory here")


def _kernels(work: Callable[..., Any], *given: Any) -> str:
    """The kernels that the calls of ``work(*given)`` get, in order of first use."""
    found: dict[str, None] = {}
    attend = F.scaled_dot_product_attention

    def watched(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
        named = dict(zip(("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"), rest, strict=False)) | options
        found[_kernel(query, key, value, named)] = None
        return attend(query, key, value, *rest, **options)

    with mock.patch.object(F, "scaled_dot_product_attention", watched):
        work(*given)
    return ", ".join(found)


def _kernel(query: Any, key: Any, value: Any, options: dict[str, Any]) -> str:
    """The first that PyTorch would take: cuDNN's and flash attention, then the memory-efficient one, then none."""
    asked = torch.backends.cuda.SDPAParams(
        query,
        key,
        value,
        options.get("attn_mask"),
        options.get("dropout_p", 0.0),
        options.get("is_causal", False),
        options.get("enable_gqa", False),
    )
    kinds = {
        "flash": torch.backends.cuda.can_use_flash_attention,
        "cuDNN": torch.backends.cuda.can_use_cudnn_attention,
        "efficient": torch.backends.cuda.can_use_efficient_attention,
    }
    return next((name for name, can in kinds.items() if can(asked)), "math")

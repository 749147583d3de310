"""A stand-in for a CUDA card, by which Unsloth's GPU code runs on a CPU with Triton's interpreter.

Import it before torch does any work and before transformers, peft and trl: it imports Unsloth, and then points the few
places that would still reach for a card at the CPU.
"""

from __future__ import annotations

import functools
import os
import tempfile
import types
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1",
    TORCHDYNAMO_DISABLE="1",
    TRITON_INTERPRET="1",
    UNSLOTH_ALLOW_CPU="1",
    UNSLOTH_COMPILE_DISABLE="1",
    UNSLOTH_COMPILE_LOCATION=os.path.join(tempfile.mkdtemp(), "compiled"),
    UNSLOTH_DISABLE_STATISTICS="1",
)

import torch

_GIB = 2**30
_CARD = types.SimpleNamespace(
    name="stand-in",
    major=8,
    minor=0,
    total_memory=24 * _GIB,
    multi_processor_count=2,
    warp_size=32,
    max_threads_per_multi_processor=2048,
    gcnArchName="",
)
_ANSWERS = {
    "current_device": 0,
    "empty_cache": None,
    "get_device_capability": (8, 0),
    "get_device_name": "stand-in",
    "get_device_properties": _CARD,
    "max_memory_reserved": 0,
    "mem_get_info": (20 * _GIB, 24 * _GIB),
    "memory_allocated": 0,
    "memory_reserved": 0,
    "synchronize": None,
}
for _name, _answer in _ANSWERS.items():
    setattr(torch.cuda, _name, lambda *args, _answer=_answer, **kwargs: _answer)

import unsloth  # noqa: E402, F401
import unsloth.models.llama as _llama  # noqa: E402

_CPU = torch.device("cpu", 0)  # with an index: caches are kept in lists by it


def _on_cpu(device: Any) -> Any:
    return _CPU if isinstance(device, int) or str(device).startswith("cuda") else device


class _Torch:
    """The module torch, except that the first card is the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def device(*args: Any) -> torch.device:
        return _on_cpu(args[0] if isinstance(args[0], int) else torch.device(*args))

    @staticmethod
    def empty(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        return torch.empty(*args, device=_on_cpu(device), **kwargs)


def _stood_in(original: Any) -> Any:
    """Unsloth sets its module's ``torch`` anew while loading, so the stand-in steps in at each call."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        vars(_llama)["torch"] = _Torch()
        return original(*args, **kwargs)

    return call


_llama.DEVICE_COUNT = 1
_llama.DEVICE_TYPE_TORCH = "cpu"
vars(_llama)["torch"] = _Torch()
_llama.LlamaRotaryEmbedding.__init__ = _stood_in(_llama.LlamaRotaryEmbedding.__init__)
_llama._PerDeviceRopeCache._build_rope_cache = _stood_in(_llama._PerDeviceRopeCache._build_rope_cache)

"""An Unsloth that only writes down what is asked of it, around a model of transformers.

It has Unsloth's habits: tuples for a cache, no padding mask in training, and a decode step that reads weights directly
unless a guard says that a layer must be called.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, DynamicCache, Qwen2ForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from rlvr_lite.grpo import cache_name

__all__ = ["Calls", "install"]


class Calls(list):
    """Names of what was called, in order, with the arguments of the load in ``loaded``."""

    loaded: dict[str, Any]


def install(monkeypatch: Any) -> Calls:
    """Put the fake into ``sys.modules``."""
    calls = Calls()
    unsloth, llama, kernels, utils = (types.ModuleType(n) for n in _NAMES)
    for module in (unsloth, llama, kernels, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def has_non_lora_adapter(proj: Any) -> bool:
        children = proj._modules
        return "base_layer" in children and not isinstance(children.get("lora_A"), nn.ModuleDict)

    def from_pretrained(**options: Any) -> tuple[Any, None]:
        calls.append("from_pretrained")
        calls.loaded = options
        model = AutoModelForCausalLM.from_pretrained(
            options["model_name"], dtype=options["dtype"], attn_implementation="sdpa", local_files_only=True
        )
        model.__class__ = _causal_lm(utils)
        model.model.__class__ = _Backbone
        model.model.max_seq_length = options["max_seq_length"]
        for block in model.model.layers:
            block.self_attn.apply_qkv, block.self_attn.apply_o = llama.original_apply_qkv, llama.original_apply_o
        model.get_input_embeddings().weight.data[model.config.pad_token_id] = 0
        return model, None

    unsloth.DEVICE_TYPE = "cuda"
    unsloth.FastLanguageModel = types.SimpleNamespace(from_pretrained=from_pretrained)
    llama.original_apply_qkv = lambda self, x: (self.q_proj(x), self.k_proj(x), self.v_proj(x))
    llama.original_apply_o = lambda self, x: self.o_proj(x)

    def apply_lora_mlp_swiglu(self: Any, x: Any) -> Any:
        calls.append("mlp")
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    kernels.apply_lora_qkv = lambda self, x: calls.append("qkv")
    kernels.apply_lora_o = lambda self, x: calls.append("o")
    kernels.apply_lora_mlp_swiglu = apply_lora_mlp_swiglu
    utils._has_non_lora_adapter = has_non_lora_adapter
    utils._has_active_dora_adapter = lambda proj: bool(getattr(proj, "lora_magnitude_vector", None))
    utils._OPTIMIZER_STEPS = 0
    return calls


_NAMES = ("unsloth", "unsloth.models.llama", "unsloth.kernels", "unsloth.kernels.utils")


#: What this transformers calls the cache of a model.
_CACHE = str(cache_name(object.__new__(Qwen2Model)))


class _Backbone(Qwen2Model):
    """Without a cache, as transformers; with ``use_cache`` it gives tuples; in training the mask is dropped."""

    def forward(
        self, attention_mask: Any = None, past_key_values: Any = None, use_cache: Any = None, **given: Any
    ) -> Any:
        if self.training and not getattr(self, "_unsloth_keep_padding_mask", False):
            attention_mask = None if attention_mask is None else torch.ones_like(attention_mask)
        cache = DynamicCache() if use_cache else None
        given |= {"attention_mask": attention_mask, _CACHE: cache, "use_cache": bool(use_cache)}
        hidden = Qwen2Model.forward(self, **given).last_hidden_state
        pairs = tuple((layer.keys, layer.values) for layer in cache.layers) if cache is not None else None
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=pairs)


def _causal_lm(utils: Any) -> type:
    def fast_forward_inference(
        causal_lm: Any, ids: Any, pairs: Any, position_ids: Any = None, attention_mask: Any = None
    ) -> Any:
        assert ids.shape[1] == 1
        cache = DynamicCache()
        for i, (keys, values) in enumerate(pairs):
            cache.update(keys, values, i)
        with _read_directly(causal_lm.model, utils):
            hidden = Qwen2Model.forward(
                causal_lm.model,
                input_ids=ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=True,
                **{_CACHE: cache},
            ).last_hidden_state
        return BaseModelOutputWithPast(
            last_hidden_state=hidden, past_key_values=[(layer.keys, layer.values) for layer in cache.layers]
        )

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert fast_forward_inference is not None  # closed over, as in Unsloth
        return Qwen2ForCausalLM.forward(self, *args, **kwargs)

    return type("Qwen2ForCausalLM", (Qwen2ForCausalLM,), {"forward": forward})


@contextmanager
def _read_directly(backbone: nn.Module, utils: Any) -> Iterator[None]:
    """Every projection that no guard protects computes ``W x + s B A x`` from its tensors, and its forward is not called."""
    changed = []
    for name, proj in backbone.named_modules():
        guarded = utils._has_non_lora_adapter(proj) or utils._has_active_dora_adapter(proj)
        if name.endswith("_proj") and not guarded:
            vars(proj)["forward"] = types.MethodType(_direct, proj)
            changed.append(proj)
    try:
        yield
    finally:
        for proj in changed:
            del vars(proj)["forward"]


def _direct(proj: Any, x: torch.Tensor) -> torch.Tensor:
    base = getattr(proj, "base_layer", proj)
    out = F.linear(x, base.weight, base.bias)
    if hasattr(proj, "lora_A") and not proj.disable_adapters:
        a, b = proj.lora_A["default"].weight, proj.lora_B["default"].weight
        out = out + F.linear(F.linear(x, a), b) * proj.scaling["default"]
    return out

"""Names and shapes of a base's layers, from its sizes."""

from __future__ import annotations

import json
from functools import lru_cache

from rlvr_lite import bases, methods
from rlvr_lite.analysis.memory import Shape

__all__ = ["layout_of"]


@lru_cache(maxsize=64)
def _built(config: str) -> methods.Layout:
    return methods.Layout.of_model(bases.blank(bases.config_object("base", json.loads(config))))


def layout_of(shape: Shape) -> methods.Layout:
    """Names and shapes of a base: of its model on the meta device, where its configuration is known."""
    if shape.config is not None:
        return _built(json.dumps(dict(shape.config), sort_keys=True))
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    h, i, bias = shape.hidden, shape.intermediate, shape.qkv_bias
    block = {
        "self_attn.q_proj": methods.Linear(queries, h, bias),
        "self_attn.k_proj": methods.Linear(keys, h, bias),
        "self_attn.v_proj": methods.Linear(keys, h, bias),
        "self_attn.o_proj": methods.Linear(h, queries),
        "mlp.gate_proj": methods.Linear(i, h),
        "mlp.up_proj": methods.Linear(i, h),
        "mlp.down_proj": methods.Linear(h, i),
    }
    layers = range(shape.layers)
    linears = {f"model.layers.{n}.{name}": linear for n in layers for name, linear in block.items()}
    norms = {
        f"model.layers.{n}.{name}": h for n in layers for name in ("input_layernorm", "post_attention_layernorm")
    } | {"model.norm": h}
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary, h)}
    if not shape.tied:
        tensors["lm_head.weight"] = (shape.vocabulary, h)
    tensors |= {f"{name}.weight": (linear.out, linear.inp) for name, linear in linears.items()}
    tensors |= {f"{name}.bias": (linear.out,) for name, linear in linears.items() if linear.bias}
    tensors |= {f"{name}.weight": (size,) for name, size in norms.items()}
    return methods.Layout(linears, norms, tensors)

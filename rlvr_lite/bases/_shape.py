"""Sizes of a base, counted on its model on the meta device: nothing is taken from the names of one architecture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlvr_lite.analysis.memory import Shape
from rlvr_lite.bases._examine import admitted

if TYPE_CHECKING:
    from torch import nn

__all__ = ["shape_of"]


def shape_of(name: str, config: Mapping[str, Any]) -> Shape:
    """The sizes of a base.

    Args:
        name: of the base, for messages.
        config: the contents of its ``config.json``.

    Raises:
        UserError: it is no causal language model that transformers can build.
    """
    return _shape(name, json.dumps(dict(config), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _shape(name: str, config: str) -> Shape:
    from rlvr_lite.grpo import Packer, output_head

    model = admitted(name, json.loads(config))
    text = model.config.get_text_config()
    head = output_head(model)
    linears = [(n, m) for n, m in model.named_modules() if _is_linear(m) and m is not head.module]
    blocks = _blocks(head.backbone)
    hidden = head.module.in_features
    attention = int(getattr(text, "num_attention_heads", 0) or getattr(text, "n_head", 0) or 1)
    caches, states = _caches(head.backbone, text)
    return Shape(
        vocabulary=head.vocabulary,
        hidden=hidden,
        intermediate=max((_inner(block, hidden, text) for block in blocks), default=hidden),
        layers=max(len(blocks), 1),
        heads=attention,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or attention),
        head_dim=int(getattr(text, "head_dim", None) or hidden // attention),
        tied=head.module.weight is model.get_input_embeddings().weight,
        numbers=sum(p.numel() for p in model.parameters()),
        matrices=tuple(sorted(Counter(m.weight.numel() for _, m in linears).items())),
        caches=caches,
        states=states,
        packs=Packer().supports(model) is None,
        scores=text._attn_implementation == "eager",
        config=json.loads(config),
    )


def _is_linear(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear)


def _blocks(backbone: nn.Module) -> list[nn.Module]:
    """The blocks: the list of modules that holds most numbers."""
    from torch import nn

    lists = [m for m in backbone.modules() if isinstance(m, nn.ModuleList)]
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=[]))


def _inner(block: nn.Module, hidden: int, config: Any) -> int:
    """Width of a gated feed-forward part with as many activations a token as the linear layers of a block have.

    Beside queries, keys, values and two outputs of a width near that of the hidden states, such a part has two outputs.
    """
    from torch import nn

    outs = sum(m.out_features for m in block.modules() if isinstance(m, nn.Linear))
    names = ("num_experts_per_tok", "moe_k", "num_experts_per_token", "top_k_experts")
    chosen = next((n for name in names if isinstance(n := getattr(config, name, None), int)), 1)
    for parameter in block.parameters():
        if parameter.dim() == 3 and parameter.shape[0] > 1:  # experts: [E, out, in] or [E, in, out]
            sizes = [n for n in parameter.shape[1:] if n != hidden]
            outs += chosen * (sizes[0] if sizes else hidden)
    return max(int((outs - 10 / 3 * hidden) / 2), hidden // 2)


def _first(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _caches(backbone: Any, config: Any) -> tuple[tuple[tuple[int, int], ...], int]:
    """Of each layer the numbers it caches a token and the tokens it keeps (0: all); numbers of states a row."""
    import torch

    from rlvr_lite.grpo import eval_mode, feed

    try:
        from transformers import DynamicCache

        cache = DynamicCache(config=config)
        for module in backbone.modules():
            if any(p.dim() == 3 and p.shape[0] > 1 for p in module.parameters(recurse=False)):
                module.forward = _first  # experts route by values, and cache nothing
        with torch.no_grad(), torch.device("meta"), eval_mode(backbone):
            one = torch.zeros(1, 1, dtype=torch.long)
            feed(backbone, one, None, one, past_key_values=cache, use_cache=True)
        found, states = [], 0
        for layer in cache.layers:
            if getattr(layer, "keys", None) is not None:
                size = layer.keys[0, :, 0].numel() + layer.values[0, :, 0].numel()
                found.append((size, int(getattr(layer, "sliding_window", 0) or 0)))
            for name in ("conv_states", "recurrent_states"):
                states += sum(x[0].numel() for x in (getattr(layer, name, None) or {}).values() if x is not None)
        return tuple(found), states
    except Exception:  # a cache of its own: as if every layer kept keys and values
        heads = int(getattr(config, "num_attention_heads", 1) or 1)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        size = 2 * int(getattr(config, "num_key_value_heads", None) or heads) * width
        return tuple((size, 0) for _ in range(int(config.num_hidden_layers))), 0

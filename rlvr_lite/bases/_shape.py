"""Sizes of a base, counted on its model on the meta device: nothing is taken from the names of one architecture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlvr_lite.analysis.memory import Shape
from rlvr_lite.bases._activations import block_list
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
    return _shape(
        name, json.dumps({k: v for k, v in config.items() if k != "quantization_config"}, sort_keys=True, default=str)
    )


@lru_cache(maxsize=64)
def _shape(name: str, config: str) -> Shape:
    from rlvr_lite.grpo import Packer, output_head

    model = admitted(name, json.loads(config))
    text = model.config.get_text_config()
    head = output_head(model)
    matrices = [m for m in model.modules() if _is_matrix(m) and m is not head.module]
    blocks = block_list(head.backbone)[1]
    hidden = head.module.in_features
    caches, states = _caches(head.backbone, text)
    return Shape(
        vocabulary=head.vocabulary,
        hidden=hidden,
        intermediate=max((_inner(block, hidden) for block in blocks), default=hidden),
        layers=max(len(blocks), 1),
        parameters=sum(p.numel() for p in model.parameters()),
        buffers=sum(b.numel() * b.element_size() for b in model.buffers()),
        matrices=tuple(sorted(Counter(m.weight.numel() for m in matrices).items())),
        caches=caches,
        states=states,
        repeats=_repeats(head.backbone),
        packs=Packer().supports(model) is None,
        config=json.loads(config),
    )


def _is_matrix(module: nn.Module) -> bool:
    """Whether 4 bits hold its weight, as transformers loads it."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return type(module) is nn.Linear or isinstance(module, Conv1D)


def _inner(block: nn.Module, hidden: int) -> int:
    """Width of a gated feed-forward part with as many activations a token as the linear layers of a block have.

    Beside queries, keys, values and two outputs of a width near that of the hidden states, such a part has two outputs.
    """
    found: list[Any] = [m for m in block.modules() if _is_matrix(m)]
    outs = sum(m.nf if hasattr(m, "nf") else m.out_features for m in found)
    return max(int((outs - 10 / 3 * hidden) / 2), hidden // 2)


def _repeats(backbone: nn.Module) -> int:
    """Query heads a head of keys, where attention reads them from copies of the keys; 0 where it does not."""
    from transformers.integrations import sdpa_attention

    groups = max((int(getattr(m, "num_key_value_groups", 1)) for m in backbone.modules()), default=1)
    return groups if groups > 1 and not hasattr(sdpa_attention, "pack_gqa") else 0


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

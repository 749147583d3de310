"""When packing is allowed and worth it, and the proof on the model at hand that it changes nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from rlvr_lite.grpo._head import output_head
from rlvr_lite.grpo._modes import eval_mode
from rlvr_lite.grpo._packing import Packed, pack_groups
from rlvr_lite.grpo._scoring import plain_hidden

__all__ = ["Packer"]

#: Decoders with softmax attention in every layer, rotary positions (or none) and no routing between tokens.
_ARCHITECTURES = ("llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}
_HALF_TOLERANCE = 0.1
# Measured on CPUs: attention under a mask against attention that is causal by itself, and gathering a token's heads.
_MASKED = 1.5  # times as long a query-key pair
_COPIES = 64  # multiply-adds a feature


class Packer:
    """Packs the rows of one model where that is supported, proven and cheaper, and says why where it is not.

    Attributes:
        packed: how many batches were packed.
        refused: how many were not, by reason.
    """

    def __init__(self) -> None:
        self.packed = 0
        self.refused: Counter[str] = Counter()
        self._seen: dict[tuple[Any, ...], str | None] = {}

    def supports(self, model: nn.Module) -> str | None:
        """``None`` if this kind of model can be packed, otherwise the reason why not."""
        if any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in model.modules()):
            return "dropout is drawn for every row"  # rows of a group would share their prompt's
        base = output_head(model).causal_lm
        config = base.config.get_text_config()
        if config.model_type not in _ARCHITECTURES:
            return f"{config.model_type} is not among the architectures that are known to pack exactly"
        if config._attn_implementation != "sdpa":
            return f"attention runs through {config._attn_implementation}, not sdpa"
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
        if kinds or (getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")):
            return f"{', '.join(sorted(kinds)) or 'sliding_attention'} layers"
        if (getattr(config, "rope_parameters", None) or {}).get("rope_type") in ("dynamic", "longrope"):
            return "rotary frequencies depend on the length of the sequence"
        return None

    def hidden(
        self, model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, completions: Tensor, completion_mask: Tensor
    ) -> Tensor | None:
        """Hidden states ``[K, H]`` that predict the completion tokens; ``None`` if the batch is better not packed."""
        reason = self.supports(model)
        if reason is None:
            batch = (prompt_ids, prompt_mask, completions, completion_mask)
            packed = pack_groups(*batch)
            if packed.input_ids.shape[1] == 1:
                reason = "a single token"  # transformers folds heads into queries there
        if reason is None:
            reason = self._cost(model, packed, *batch) or self._proof(model, *batch)
        if reason is not None:
            self.refused[reason] += 1
            return None
        self.packed += 1
        return _packed_hidden(output_head(model).backbone, packed)

    def _cost(self, model: nn.Module, packed: Packed, *batch: Tensor) -> str | None:
        """Whether one row after the other takes less work, in multiply-adds of a forward pass."""
        prompt_ids, prompt_mask, completions, completion_mask = batch
        config = output_head(model).causal_lm.config.get_text_config()
        layers = [m for m in output_head(model).backbone.modules() if isinstance(m, nn.Linear)]
        a_token = sum(m.in_features * m.out_features for m in layers)
        a_pair = 2 * config.hidden_size * config.num_hidden_layers
        rows, length = len(prompt_ids), prompt_ids.shape[1] + completions.shape[1] - 1
        full = bool(prompt_mask.all() and completion_mask[:, :-1].all())  # then no mask is needed
        plain = a_token * rows * length + a_pair * rows * length * length * (0.5 if full else _MASKED)
        a_copy = _COPIES * config.hidden_size * config.num_hidden_layers
        ours = (a_token + a_copy) * packed.input_ids.shape[1] + a_pair * packed.pairs * _MASKED
        return None if ours < plain else "one row at a time is cheaper"

    def _proof(self, model: nn.Module, *batch: Tensor) -> str | None:
        """Compare both ways on a few rows, the first time a shape (in powers of two) meets a dtype."""
        weight = output_head(model).weight
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        shape = (batch[0].shape[1].bit_length(), batch[2].shape[1].bit_length())
        key = (id(output_head(model).causal_lm), dtype, device, shape)
        if key not in self._seen:
            self._seen[key] = None
            try:
                difference = _difference(model, *batch)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a model with a forward of its own may stumble over the mask anywhere
                self._seen[key] = f"packing fails on this model ({error})"
            else:
                if not difference <= _TOLERANCE.get(dtype, _HALF_TOLERANCE):
                    self._seen[key] = f"packed and plain differ by {difference:.2g} on this model"
        return self._seen[key]


def _packed_hidden(backbone: nn.Module, packed: Packed) -> Tensor:
    output = backbone(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=packed.attention_mask,
        use_cache=False,
    )
    return packed.unpack(output.last_hidden_state)


@torch.no_grad()
def _difference(model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, completions: Tensor, mask: Tensor) -> float:
    """Relative difference of hidden states between packed and plain, on two rows of the first and of the last group."""
    same_as_first = (prompt_ids == prompt_ids[0]).all(1).nonzero().squeeze(-1)[:2]
    same_as_last = (prompt_ids == prompt_ids[-1]).all(1).nonzero().squeeze(-1)[-2:]
    rows = torch.cat([same_as_first, same_as_last]).unique()
    batch = [x[rows] for x in (prompt_ids, prompt_mask, completions, mask)]
    backbone = output_head(model).backbone
    with eval_mode(model):  # dropout would differ between the two
        plain = plain_hidden(backbone, *batch).float()
        packed = _packed_hidden(backbone, pack_groups(*batch)).float()
    return float((packed - plain).norm() / plain.norm().clamp(min=1e-9))

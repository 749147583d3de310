"""What a run has to show before it counts: that it trained its method, and that the saved adapter is the trained policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlvr_lite import grpo, sampling

__all__ = ["PARITY_LIMIT", "logits_on", "parity_difference"]

#: Largest difference between the logits of the trained policy and of the saved one, relative to the largest logit.
PARITY_LIMIT = {"fp32": 1e-5, "nf4": 1e-4, "bf16": 2e-2, "fp16": 4e-3}


@torch.no_grad()
def logits_on(model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any]) -> Tensor:
    """Logits ``[P, V]``, float32 on the CPU, that follow each prompt; each prompt computed by itself, without padding."""
    head = grpo.output_head(model)
    rows = []
    with sampling.eval_mode(model):
        for prompt in prompts:
            ids, mask = sampling.encode(tokenizer, [prompt])
            hidden = head.backbone(input_ids=ids.to(head.weight.device), attention_mask=mask.to(head.weight.device))
            rows.append(head.logits(hidden.last_hidden_state[:, -1]).float().cpu())
    return torch.cat(rows)


def parity_difference(trained: Tensor, reloaded: Tensor) -> float:
    """Largest difference between two sets of logits, relative to the largest logit.

    >>> parity_difference(torch.tensor([[1.0, -4.0]]), torch.tensor([[1.0, -4.2]]))
    0.05
    """
    scale = trained.abs().max().clamp(min=1e-6)
    return round(((trained - reloaded).abs().max() / scale).item(), 9)

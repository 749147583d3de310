"""Log-probabilities of sampled completions under a model: what the loss is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlvr_lite.grpo._feed import feed
from rlvr_lite.grpo._head import output_head
from rlvr_lite.grpo.logprobs import token_logprobs

if TYPE_CHECKING:
    from rlvr_lite.grpo._packer import Packer
    from rlvr_lite.grpo._truncation import Truncation

__all__ = ["completion_logprobs"]


def completion_logprobs(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completions: Tensor,
    completion_mask: Tensor,
    temperature: float = 1.0,
    *,
    truncation: Truncation | None = None,
    packer: Packer | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of every completion token, with gradient to whatever the model trains.

    Runs the backbone, then the head at completion tokens only (:func:`token_logprobs`). With a packer, rows next to
    each other that share a prompt are computed on one copy of it wherever that is supported and cheaper. Autocast, if
    any, is the caller's; gradient checkpointing and dropout follow the model's own settings and mode.

    Args:
        model: a transformers causal language model, or a ``PeftModel`` around one.
        prompt_ids: int64 ``[B, T]``, padded on the left.
        prompt_mask: ``[B, T]``.
        completions: int64 ``[B, C]``, padded on the right.
        completion_mask: ``[B, C]``.
        temperature: divides the logits, as in sampling.
        truncation: what the sampler left out; ``None`` scores over the whole vocabulary.
        packer: keeps what is known about packing this model; ``None`` computes every row by itself.

    Returns:
        log-probabilities and entropies, each float32 ``[B, C]`` with 0 at padding.
    """
    head = output_head(model)
    kept = completion_mask.bool()
    if not len(kept) or not kept.any():
        zero = torch.zeros(kept.shape, dtype=torch.float32, device=kept.device)
        return zero, zero.clone()
    hidden = None
    if packer is not None:
        hidden = packer.hidden(model, prompt_ids, prompt_mask, completions, completion_mask)
    if hidden is None:
        hidden = plain_hidden(head.backbone, prompt_ids, prompt_mask, completions, completion_mask)
    with head.precision():
        scored = token_logprobs(
            hidden,
            head.weight,
            head.bias,
            completions[kept],
            temperature,
            scale=head.scale,
            cap=head.cap,
            truncation=truncation,
        )
    logprobs, entropy = (
        torch.zeros(kept.shape, dtype=x.dtype, device=x.device).masked_scatter(kept, x) for x in scored
    )
    return logprobs, entropy


def plain_hidden(
    backbone: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, completions: Tensor, completion_mask: Tensor
) -> Tensor:
    """Hidden states ``[N, H]`` that predict the N completion tokens, row by row, each row with its own prompt.

    The last column is never fed: it predicts nothing that is scored.
    """
    ids = torch.cat([prompt_ids, completions[:, :-1]], 1)
    mask = torch.cat([prompt_mask.bool(), completion_mask[:, :-1].bool()], 1)
    position = (mask.long().cumsum(1) - 1).clamp(min=0)
    hidden = feed(backbone, ids, mask.long(), position)
    return hidden[:, prompt_ids.shape[1] - 1 :][completion_mask.bool()]

"""Completions of a batch of prompts: each prompt is read once, and finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Cache

from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import OutputHead, eval_mode, feed, output_head
from rlvr_lite.sampling.cache import growing_cache
from rlvr_lite.sampling.choice import choose
from rlvr_lite.sampling.keys import Uniforms
from rlvr_lite.sampling.ways import way

__all__ = ["Rollout", "next_hidden", "rollout"]

_SLACK = 8  # finished rows are taken out once they are at least 1 in so many: copying the cache is not free


@dataclass(frozen=True)
class Rollout:
    """Sampled completions, the G of a prompt next to each other.

    Attributes:
        tokens: int64 ``[P*G, L]``, the end token included, padded on the right.
        mask: int64 ``[P*G, L]``, 1 at sampled tokens.
        logprobs: float32 ``[P*G, L]``, of each token under softmax(logits / temperature); 0 at padding.
    """

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor


def next_hidden(head: OutputHead, token: Tensor, seen: Tensor, position: Tensor, cache: Cache) -> Tensor:
    """Hidden states ``[B, H]`` at one more token of each row, which joins the cache.

    Args:
        head: the model, taken apart.
        token: int64 ``[B]``.
        seen: mask ``[B, T + 1]`` of the tokens cached and of this one.
        position: int64 ``[B, 1]`` of this token.
        cache: keys and values of T tokens.
    """
    return feed(head.backbone, token[:, None], seen, position, past_key_values=cache, use_cache=True)[:, -1]


@torch.no_grad()
def rollout(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    group_size: int,
    sampling: SamplingConfig,
    eos_ids: Sequence[int],
    pad_id: int,
    row_keys: Sequence[int],
) -> Rollout:
    """Sample ``group_size`` completions of each prompt from the model as it stands, adapters included, in eval mode.

    The prompt is prefilled once and its cache repeated G times, where the architecture allows (:func:`way`). Row i uses only its own key and its own logits, so the
    sample does not depend on how rows are batched (up to rounding of the model's matrix products). Autocast, if any,
    is the caller's: sample in the dtype that the training pass scores in.

    Args:
        model: a causal language model of transformers, or a ``PeftModel`` around one.
        input_ids: int64 ``[P, T]``, padded on the left.
        attention_mask: ``[P, T]``, 1 at prompt tokens; every prompt has at least one.
        group_size: completions a prompt (G).
        sampling: temperature, top_p, top_k, max_new_tokens.
        eos_ids: tokens that end a completion.
        pad_id: written after the end.
        row_keys: one 64-bit key for each of the P*G rows.

    Raises:
        ValueError: not one key a row, an empty prompt, or a model whose logits are not a plain projection.
    """
    head = output_head(model)
    rows = len(input_ids) * group_size
    if len(row_keys) != rows:
        raise ValueError(f"{rows} rows need {rows} keys, got {len(row_keys)}")
    if not attention_mask.any(-1).all():
        raise ValueError("a prompt has no token")
    device, length = input_ids.device, sampling.max_new_tokens
    uniforms = Uniforms(row_keys)
    ends = torch.tensor(sorted(eos_ids), device=device)
    tokens = torch.full((rows, length), pad_id, device=device)
    mask = torch.zeros_like(tokens)
    logprobs = torch.zeros(rows, length, device=device)
    how = way(model)
    cache = None if how == "recomputed" else growing_cache(head.backbone.config)
    given = {} if cache is None else {"past_key_values": cache, "use_cache": True}
    row = torch.arange(rows, device=device)
    if how == "rows":
        input_ids, attention_mask, group_size = input_ids[row // group_size], attention_mask[row // group_size], 1
    with eval_mode(model):
        position = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        hidden = feed(head.backbone, input_ids, attention_mask, position, **given)[:, -1]
        seen = torch.cat([attention_mask, attention_mask.new_ones(len(input_ids), length)], -1)
        if group_size > 1:
            shared = row // group_size
            seen, position, hidden, input_ids = (x[shared] for x in (seen, position, hidden, input_ids))
            if cache is not None:
                cache.reorder_cache(shared)
        alive = torch.ones(rows, dtype=torch.bool, device=device)
        for step in range(length):
            drawn = None if sampling.greedy else torch.from_numpy(uniforms.at(step, row.cpu().numpy())).to(device)
            token, logprob = choose(head.logits(hidden), drawn, sampling)
            at = row[alive]
            tokens[at, step], mask[at, step], logprobs[at, step] = token[alive], 1, logprob[alive]
            alive &= ~torch.isin(token, ends)
            living = int(alive.sum())
            if not living or step == length - 1:
                break
            if how != "rows" and len(row) - living >= max(1, len(row) // _SLACK):
                kept = alive.nonzero().squeeze(-1)
                if cache is not None:
                    cache.reorder_cache(kept)
                row, seen, position, token, alive, input_ids = (
                    x[kept] for x in (row, seen, position, token, alive, input_ids)
                )
            mask_now = seen[:, : input_ids.shape[1] + (step + 1 if cache is not None else 1)]
            if cache is None:  # the whole sequence once more
                input_ids = torch.cat([input_ids, token[:, None]], -1)
                position = torch.cat([position, position[:, -1:] + 1], -1)
                hidden = feed(head.backbone, input_ids, mask_now, position)[:, -1]
            else:
                position = position[:, -1:] + 1
                hidden = next_hidden(head, token, mask_now, position, cache)
    used = int(mask.any(0).sum())
    return Rollout(tokens[:, :used], mask[:, :used], logprobs[:, :used])

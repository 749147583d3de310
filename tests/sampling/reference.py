"""The plain loop that the rollout has to equal: the host looks at every token, and asks for every number when it is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import eval_mode, feed, output_head
from rlvr_lite.sampling import Rollout, choose, growing_cache, next_hidden

_SLACK = 8


def _number(key: int, step: int) -> float:
    block, column = divmod(step, 256)
    return float(np.random.Generator(np.random.Philox(key=key, counter=block * 64)).random(256)[column])


@torch.no_grad()
def plain_rollout(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    group_size: int,
    sampling: SamplingConfig,
    eos_ids: Sequence[int],
    pad_id: int,
    row_keys: Sequence[int],
) -> Rollout:
    head = output_head(model)
    rows = len(input_ids) * group_size
    device, length = input_ids.device, sampling.max_completion_length
    ends = torch.tensor(sorted(eos_ids), device=device)
    tokens = torch.full((rows, length), pad_id, device=device)
    mask = torch.zeros_like(tokens)
    logprobs = torch.zeros(rows, length, device=device)
    cache = growing_cache(head.backbone.config)
    with eval_mode(model):
        position = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        read = {"past_key_values": cache, "use_cache": True}
        hidden = feed(head.backbone, input_ids, attention_mask, position, **read)[:, -1]
        cache.reorder_cache(torch.arange(rows) // group_size)
        seen = torch.cat([attention_mask, attention_mask.new_ones(len(input_ids), length)], -1)
        seen, position, hidden = (x.repeat_interleave(group_size, 0) for x in (seen, position[:, -1:], hidden))
        row = torch.arange(rows, device=device)
        alive = torch.ones(rows, dtype=torch.bool, device=device)
        for step in range(length):
            drawn = torch.tensor([_number(row_keys[i], step) for i in row.tolist()], dtype=torch.float64)
            token, logprob = choose(head.logits(hidden), drawn, sampling)
            at = row[alive]
            tokens[at, step], mask[at, step], logprobs[at, step] = token[alive], 1, logprob[alive]
            alive &= ~torch.isin(token, ends)
            living = int(alive.sum())
            if not living or step == length - 1:
                break
            if len(row) - living >= max(1, len(row) // _SLACK):
                kept = alive.nonzero().squeeze(-1)
                cache.reorder_cache(kept)
                row, seen, position, token, alive = (x[kept] for x in (row, seen, position, token, alive))
            position = position + 1
            hidden = next_hidden(head, token, seen[:, : input_ids.shape[1] + step + 1], position, cache)
    used = int(mask.any(0).sum())
    return Rollout(tokens[:, :used], mask[:, :used], logprobs[:, :used])

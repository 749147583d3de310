"""Completions of a batch of prompts: each prompt is read once, and finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import OutputHead, eval_mode, feed, output_head, takes
from rlvr_lite.methods import lean
from rlvr_lite.sampling._cache import all_growing, growing_cache
from rlvr_lite.sampling._choice import choose
from rlvr_lite.sampling._keys import UNIFORM_BLOCK, uniforms
from rlvr_lite.sampling._limits import check_finite, check_length
from rlvr_lite.sampling._ways import way

__all__ = ["Rollout", "next_hidden", "rollout"]

_LOOK_EVERY = {"cpu": 1, "cuda": 16}  # tokens: a row that has ended computes at most so many in vain
_SLACK = 8  # finished rows are taken out once they are at least 1 in so many: copying the cache is not free


@dataclass(frozen=True)
class Rollout:
    """Sampled completions, the G of a prompt next to each other.

    Attributes:
        tokens: int64 ``[P*G, L]``, the end token included, padded on the right.
        mask: int64 ``[P*G, L]``, 1 at sampled tokens.
        logprobs: float32 ``[P*G, L]``, of each token under softmax(logits / temperature) over the tokens kept; 0 at
            padding.
    """

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor


def next_hidden(head: OutputHead, token: Tensor, seen: Tensor | None, position: Tensor, cache: Cache) -> Tensor:
    """Hidden states ``[B, H]`` at one more token of each row, which joins the cache.

    Args:
        head: the model, taken apart.
        token: int64 ``[B]``.
        seen: mask ``[B, T + 1]`` of the tokens cached and of this one, or ``[B, 1, 1, T + 1]`` in booleans, which
            transformers takes as it is; ``None`` where there is no padding.
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
    every: int | None = None,
) -> Rollout:
    """Sample ``group_size`` completions of each prompt from the model as it stands, adapters included, in eval mode.

    Between two looks nothing waits for the device: numbers, tokens and masks stay there. The prompt is prefilled once
    and its cache repeated G times, where the architecture allows (:func:`way`). Row i uses only its own key and its own
    logits, so the sample does not depend on how rows are batched (up to rounding of the model's matrix products).
    Autocast, if any, is the caller's: sample in the dtype that the training pass scores in. Adapters are cast and folded once
    for the time (:func:`rlvr_lite.methods.lean`).

    Args:
        model: a causal language model of transformers, or a ``PeftModel`` around one.
        input_ids: int64 ``[P, T]``, padded on the left.
        attention_mask: ``[P, T]``, 1 at prompt tokens; every prompt has at least one.
        group_size: completions a prompt (G).
        sampling: temperature, top_p, top_k, min_p, max_completion_length.
        eos_ids: tokens that end a completion.
        pad_id: written after the end.
        row_keys: one 64-bit key for each of the P*G rows.
        every: tokens between two looks of the host at which rows still live; ``None`` for 16 on a GPU, where each is a
            synchronisation, and 1 on a CPU, where it costs nothing. In between finished rows go on, unseen. Rounding
            apart nothing else depends on it.

    Raises:
        ValueError: not one key a row, an empty prompt, or a model whose logits are not a plain projection.
    """
    head = output_head(model)
    every = every or _LOOK_EVERY.get(input_ids.device.type, 16)
    rows = len(input_ids) * group_size
    if len(row_keys) != rows:
        raise ValueError(f"{rows} rows need {rows} keys, got {len(row_keys)}")
    device, length, width = input_ids.device, sampling.max_completion_length, input_ids.shape[1]
    real = attention_mask.sum(-1).tolist()
    if not all(real):
        raise ValueError("a prompt has no token")
    padded = [n < width for n in real for _ in range(group_size)]
    row, tail = list(range(rows)), _Tail(rows, length, pad_id, device)
    ends = torch.tensor(sorted(eos_ids), device=device)
    check_length(head, max(real), length)
    how = way(model)
    prompt_ids, prompt_mask = input_ids, attention_mask
    cache = None if how == "recomputed" else growing_cache(head.backbone.config)
    given = {} if cache is None else {"past_key_values": cache, "use_cache": True}
    shared = torch.arange(rows, device=device) // group_size
    if how == "rows":
        input_ids, attention_mask, group_size = input_ids[shared], attention_mask[shared], 1
    with eval_mode(model), lean(model):
        position = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        hidden = feed(head.backbone, input_ids, attention_mask, position, **given)[:, -1]
        own_mask = cache is not None and _takes_own_mask(head.backbone, cache)
        seen = torch.cat([attention_mask, attention_mask.new_ones(len(input_ids), length)], -1)
        seen = seen.bool() if own_mask else seen
        if group_size > 1:
            seen, position, hidden, input_ids = (x[shared] for x in (seen, position, hidden, input_ids))
            if cache is not None:
                cache.reorder_cache(shared)
        alive = torch.ones(rows, dtype=torch.bool, device=device)
        drawn: Tensor | None = None
        for step in range(length):
            if not sampling.greedy and step % UNIFORM_BLOCK == 0:
                numbers = uniforms([row_keys[i] for i in row], step // UNIFORM_BLOCK)
                drawn = torch.from_numpy(numbers).to(device, non_blocking=True)
            uniform = None if drawn is None else drawn[:, step % UNIFORM_BLOCK]
            token, logprob = choose(head.logits(hidden), uniform, sampling)
            tail.add(token, logprob, alive)
            alive = alive & ~(token[:, None] == ends).any(-1)
            last = step == length - 1
            if last or (step + 1) % every == 0:
                tail.write(row)
                left = [] if last else [i for i, lives in enumerate(alive.tolist()) if lives]  # the host looks
                if not left:
                    break
                if how != "rows" and len(row) - len(left) >= max(1, len(row) // _SLACK):
                    kept = torch.tensor(left).to(device, non_blocking=True)
                    if cache is not None:
                        cache.reorder_cache(kept)
                    seen, position, token, alive, input_ids = (
                        x[kept] for x in (seen, position, token, alive, input_ids)
                    )
                    drawn = None if drawn is None else drawn[kept]
                    row = [row[i] for i in left]
            shown: Tensor | None = seen[:, : width + step + 1]
            if cache is None:  # the whole sequence once more
                input_ids = torch.cat([input_ids, token[:, None]], -1)
                position = torch.cat([position, position[:, -1:] + 1], -1)
                hidden = feed(head.backbone, input_ids, shown, position)[:, -1]
                continue
            position = position[:, -1:] + 1
            if own_mask:
                shown = seen[:, None, None, : width + step + 1] if any(padded[i] for i in row) else None
            hidden = next_hidden(head, token, shown, position, cache)
    made = tail.rollout()
    check_finite(model, head, made.logprobs, prompt_ids, prompt_mask, made.tokens)
    return made


class _Tail:
    """The completions so far, and the tokens since the host last looked."""

    def __init__(self, rows: int, length: int, pad_id: int, device: torch.device):
        self.tokens = torch.full((rows, length), pad_id, device=device)
        self.mask = torch.zeros_like(self.tokens)
        self.logprobs = torch.zeros(rows, length, device=device)
        self.written = 0
        self._pad_id = pad_id
        self._since: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, token: Tensor, logprob: Tensor, alive: Tensor) -> None:
        """One more token ``[R]`` of the rows at hand; it counts where the row was alive."""
        self._since.append((token, logprob, alive))

    def write(self, row: Sequence[int]) -> None:
        """Put what was added where it belongs: ``row`` numbers the rows at hand."""
        token, logprob, was = (torch.stack(column, 1) for column in zip(*self._since, strict=True))
        span = slice(self.written, self.written + token.shape[1])
        whole = len(row) == len(self.tokens)
        at: Any = slice(None) if whole else torch.tensor(row).to(token.device, non_blocking=True)
        self.tokens[at, span] = torch.where(was, token, self._pad_id)
        self.mask[at, span] = was.long()
        self.logprobs[at, span] = torch.where(was, logprob, 0.0)
        self.written, self._since = span.stop, []

    def rollout(self) -> Rollout:
        """What was sampled, up to the longest completion."""
        used = int(self.mask.any(0).sum())
        return Rollout(self.tokens[:, :used], self.mask[:, :used], self.logprobs[:, :used])


def _takes_own_mask(backbone: Any, cache: Cache) -> bool:
    """Whether one row of booleans a sequence is all that attention has to be told, so that transformers need not look.

    Not with a sliding window or a state, with biases made from a 2-D mask (ALiBi), or with attention other than sdpa.
    """
    config = backbone.config
    return (
        all_growing(cache)
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and not getattr(config, "alibi", False)
        and takes(backbone, "position_ids")
    )

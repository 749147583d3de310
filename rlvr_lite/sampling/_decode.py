"""Completions of a batch of prompts: each prompt is read once, and finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import OutputHead, eval_mode, feed, output_head
from rlvr_lite.methods import lean
from rlvr_lite.sampling._cache import growing_cache, takes_own_mask
from rlvr_lite.sampling._choice import choose
from rlvr_lite.sampling._keys import Numbers
from rlvr_lite.sampling._limits import check_finite, check_length
from rlvr_lite.sampling._step import FixedStep, GrowingStep, RecomputingStep
from rlvr_lite.sampling._ways import is_fixed, way

__all__ = ["Rollout", "rollout"]

_LOOK_EVERY = {"cpu": 1, "cuda": 16}  # tokens: a row that has ended computes at most so many in vain


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
    fixed: bool | None = None,
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
        fixed: whether a step works on buffers of a fixed place and shape, of which a GPU makes CUDA graphs, where the
            architecture allows (:func:`is_fixed`); ``None`` for on a GPU. It changes nothing but rounding.

    Raises:
        ValueError: not one key a row, an empty prompt, or a model whose logits are not a plain projection.
    """
    head = output_head(model)
    every = every or _LOOK_EVERY.get(input_ids.device.type, 16)
    rows = len(input_ids) * group_size
    if len(row_keys) != rows:
        raise ValueError(f"{rows} rows need {rows} keys, got {len(row_keys)}")
    device, length = input_ids.device, sampling.max_completion_length
    real = attention_mask.sum(-1).tolist()
    if not all(real):
        raise ValueError("a prompt has no token")
    row, tail = list(range(rows)), _Tail(rows, length, pad_id, device)
    ends = torch.tensor(sorted(eos_ids), device=device)
    check_length(head, max(real), length)
    fixed = device.type == "cuda" if fixed is None else fixed
    numbers = None if sampling.greedy else Numbers(row_keys, device)
    with eval_mode(model), lean(model):
        hidden, step = _read(model, head, input_ids, attention_mask, group_size, sampling, fixed)
        alive = torch.ones(rows, dtype=torch.bool, device=device)
        token, logprob = choose(head.logits(hidden), None if numbers is None else numbers.at(0), sampling)
        for done in range(1, length + 1):
            tail.add(token, logprob, alive)
            alive = alive & ~(token[:, None] == ends).any(-1)
            if done == length or done % every == 0:
                tail.write(row)
                lives = [] if done == length else alive.tolist()  # the host looks
                if not any(lives):
                    break
                kept = step.leaving(lives)
                if kept is not None:
                    at = torch.tensor(kept).to(device, non_blocking=True)
                    step.keep(kept, at)
                    token, alive, row = token[at], alive[at], [row[i] for i in kept]
                    if numbers is not None:
                        numbers.keep(kept, at)
            token, logprob = step(token, None if numbers is None else numbers.at(done))
    made = tail.rollout()
    check_finite(model, head, made.logprobs, input_ids, attention_mask, made.tokens)
    return made


def _read(
    model: nn.Module, head: OutputHead, ids: Tensor, mask: Tensor, group: int, sampling: SamplingConfig, fixed: bool
) -> tuple[Tensor, FixedStep | GrowingStep | RecomputingStep]:
    """Hidden states ``[P*G, H]`` after the prompts, and what reads on from there."""
    how = way(model)
    shared = torch.arange(len(ids) * group, device=ids.device) // group
    if how == "rows":
        ids, mask, shared = ids[shared], mask[shared], torch.arange(len(shared), device=ids.device)
    position = (mask.long().cumsum(-1) - 1).clamp(min=0)
    if how == "recomputed":
        hidden = feed(head.backbone, ids, mask, position)[:, -1]
        return hidden[shared], RecomputingStep(head, sampling, ids[shared], mask[shared], position[shared])
    cache = growing_cache(head.backbone.config)
    hidden = feed(head.backbone, ids, mask, position, past_key_values=cache, use_cache=True)[:, -1]
    own_mask = takes_own_mask(head.backbone, cache)
    if fixed and how == "shared" and is_fixed(model):
        return hidden[shared], FixedStep(head, sampling, cache, mask, position[:, -1:], shared)
    if how == "shared" and group > 1:
        cache.reorder_cache(shared)
    mask, position = mask[shared], position[shared, -1:]
    return hidden[shared], GrowingStep(head, sampling, cache, mask, position, own_mask=own_mask, leave=how == "shared")


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

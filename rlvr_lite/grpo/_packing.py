"""Shared-prompt packing: each group's prompt once, then its completions, all groups in one sequence without padding.

The sequence is ``[prompt 1][c11]..[c1G][prompt 2][c21]..``. A completion token attends to its own group's prompt and to
what came before it in its own completion: a tree. Positions count from the start of the prompt on each branch, so a
decoder with rotary positions computes for every token what it would compute for the row alone. The idea is that of
prefix sharing (Juravsky et al. 2024, Hydragen, §3.1) applied to training.

A dense tree mask is quadratic in the length of the whole sequence. Here every linear layer sees the packed sequence, and
attention alone is computed block by block: prompts causally, completions against prompt and self.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlvr_lite.grpo._batch import prompt_groups

__all__ = ["Packed", "TreeMask", "pack_groups"]


_WIDTH = 256  # queries at a time: what lies above the diagonal is computed only within so many tokens

Attention = Callable[..., Tensor]


@dataclass(frozen=True)
class _Block:
    """The groups whose prompts have the same length P: n of them, with R completions of at most C tokens.

    Attributes:
        prompts: positions in the sequence, ``[n, P]``.
        completions: positions in the sequence, ``[R, C]``, the longest first; those of padding point anywhere.
        group: which of the n prompts each completion continues, ``[R]``.
        causal: bool ``[C, P + C]``, what a completion token sees: the prompt, and its own completion up to itself.
        spans: queries taken together, as (first column, end column, number of completions that reach so far).
    """

    prompts: Tensor
    completions: Tensor
    group: Tensor
    causal: Tensor
    spans: tuple[tuple[int, int, int], ...]

    def attend(self, attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Outputs ``[tokens, heads, head_dim]`` of the prompts, then of each span of the completions."""
        shared_query, shared_key, shared_value = (_rows(x, self.prompts) for x in (query, key, value))
        outputs = [_flat(attention(shared_query, shared_key, shared_value, is_causal=True))]
        if self.spans:
            own_query, own_key, own_value = (_rows(x, self.completions) for x in (query, key, value))
            seen_key = torch.cat([shared_key.index_select(0, self.group), own_key], 2)
            seen_value = torch.cat([shared_value.index_select(0, self.group), own_value], 2)
            for first, end, rows in self.spans:
                seen = self.prompts.shape[1] + end
                part = (
                    _cut(own_query, rows, first, end),
                    _cut(seen_key, rows, 0, seen),
                    _cut(seen_value, rows, 0, seen),
                )
                outputs.append(_flat(attention(*part, attn_mask=self.causal[first:end, :seen])))
        return outputs

    @property
    def pairs(self) -> int:
        """Query-key pairs computed; half of the causal square of a prompt is skipped."""
        prompt = self.prompts.shape[1]
        own = sum((end - first) * (prompt + end) * rows for first, end, rows in self.spans)
        return self.prompts.numel() * prompt // 2 + own


def _rows(x: Tensor, positions: Tensor) -> Tensor:
    """``[rows, heads, length, head_dim]`` picked from ``[1, heads, N, head_dim]`` by positions ``[rows, length]``."""
    return x[0].index_select(1, positions.flatten()).unflatten(1, positions.shape).transpose(0, 1)


def _cut(x: Tensor, rows: int, first: int, end: int) -> Tensor:
    """``x[:rows, :, first:end]``; the whole of it is not cut, because the gradient of a cut is padded to the whole."""
    return x if (rows, first, end) == (x.shape[0], 0, x.shape[2]) else x[:rows, :, first:end]


def _flat(x: Tensor) -> Tensor:
    """``[rows * length, heads, head_dim]`` from ``[rows, heads, length, head_dim]``."""
    return x.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class _Plan:
    """The blocks, and where each token of the sequence lies in their outputs laid end to end, ``[N]``."""

    blocks: tuple[_Block, ...]
    order: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout_p: float, scale: float | None) -> Tensor:
        """Tree attention ``[1, heads, N, head_dim]``."""
        attention = partial(F.scaled_dot_product_attention, dropout_p=dropout_p, scale=scale)
        outputs = [x for block in self.blocks for x in block.attend(attention, query, key, value)]
        return torch.cat(outputs).index_select(0, self.order).transpose(0, 1)[None]


class TreeMask(Tensor):
    """An attention mask ``[1, 1, N, N]`` that occupies one byte and replaces the attention it is given to.

    Models hand it through to ``scaled_dot_product_attention`` as they do any four-dimensional mask; there it is not read
    but answers with the tree attention of its plan.
    """

    plan: _Plan | None = None

    @classmethod
    def of(cls, plan: _Plan, tokens: int) -> TreeMask:
        """The mask of a sequence of that many tokens."""
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=plan.order.device).expand(1, 1, tokens, tokens)
        made = mask.as_subclass(cls)
        made.plan = plan
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return super().__torch_function__(func, types, args, kwargs)
        mask = kwargs.get("attn_mask")
        known = len(args) == 3 and isinstance(mask, cls) and mask.plan is not None and not kwargs.get("enable_gqa")
        if not known or args[0].shape[2] != len(mask.plan.order):
            raise RuntimeError("this model calls its attention in a way that tree attention does not know")
        query, key, value = args
        return mask.plan.attend(query, key, value, kwargs.get("dropout_p", 0.0), kwargs.get("scale"))


@dataclass(frozen=True)
class Packed:
    """A packed batch: what to feed, and where the predictions of the completion tokens come out.

    Attributes:
        input_ids: int64 ``[1, N]``.
        position_ids: int64 ``[1, N]``.
        attention_mask: :class:`TreeMask` ``[1, 1, N, N]``.
        predicts: int64 ``[K]``, the position whose hidden state predicts each of the K completion tokens, row by row.
        pairs: query-key pairs that attention computes.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: TreeMask
    predicts: Tensor
    pairs: int

    def unpack(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[K, H]`` that predict the completion tokens, from the backbone's ``[1, N, H]``."""
        return hidden[0].index_select(0, self.predicts)


def pack_groups(prompt_ids: Tensor, prompt_mask: Tensor, completions: Tensor, completion_mask: Tensor) -> Packed:
    """Pack rows into one sequence in which each prompt stands once.

    Rows next to each other with the same prompt are a group. The last token of a completion is left out: it predicts
    nothing that is scored.

    Args:
        prompt_ids: int64 ``[B, T]``, padded on the left.
        prompt_mask: ``[B, T]``.
        completions: int64 ``[B, C]``, padded on the right.
        completion_mask: ``[B, C]``.

    >>> prompts, completions = torch.tensor([[7, 8], [7, 8]]), torch.tensor([[1, 2, 3], [4, 5, 0]])
    >>> packed = pack_groups(prompts, torch.ones(2, 2), completions, torch.tensor([[1, 1, 1], [1, 1, 0]]))
    >>> packed.input_ids.tolist(), packed.position_ids.tolist()
    ([[7, 8, 1, 2, 4]], [[0, 1, 2, 3, 2]])
    >>> packed.predicts.tolist()  # of 1, 2, 3, 4, 5
    [1, 2, 3, 1, 4]
    """
    prompt_mask, completion_mask = prompt_mask.bool(), completion_mask.bool()
    group = prompt_groups(prompt_ids, prompt_mask)
    leads = torch.cat([group.new_ones(1), group.diff()]).bool()  # the rows that carry their group's prompt
    fed = completion_mask[:, 1:]
    ids = torch.cat([prompt_ids, completions[:, :-1]], 1)
    kept = torch.cat([prompt_mask & leads[:, None], fed], 1)
    position = torch.cat([prompt_mask, fed], 1).long().cumsum(1) - 1
    sequence = (kept.flatten().long().cumsum(0) - 1).view(kept.shape)  # where each kept token stands
    first, width = leads.nonzero().squeeze(-1), prompt_ids.shape[1]
    before = sequence[first[group], width - 1]  # the prompt's last token, which predicts the completion's first
    predicts = torch.cat([before[:, None], sequence[:, width:]], 1)
    plan = _plan(sequence, first, group, prompt_mask.sum(1)[first], fed.sum(1), width)
    return Packed(
        ids[kept][None],
        position[kept][None],
        TreeMask.of(plan, len(plan.order)),
        predicts[completion_mask],
        sum(block.pairs for block in plan.blocks),
    )


def _plan(sequence: Tensor, first: Tensor, group: Tensor, prompts: Tensor, fed: Tensor, width: int) -> _Plan:
    """Blocks by prompt length.

    Args:
        sequence: ``[B, T + C - 1]``, where each token of each row stands.
        first: row of each group that carries the prompt.
        group: of each row.
        prompts: prompt length of each group.
        fed: completion tokens fed for each row.
        width: T.
    """
    device = sequence.device
    order = torch.empty(int(sequence[-1, -1]) + 1, dtype=torch.long, device=device)
    blocks, laid = [], 0
    for length in prompts.unique().tolist():
        same = (prompts == length).nonzero().squeeze(-1)
        prompt = sequence[first[same], width - length : width]
        order[prompt.flatten()] = laid + torch.arange(prompt.numel(), device=device)
        laid += prompt.numel()
        rows = (torch.isin(group, same) & (fed > 0)).nonzero().squeeze(-1)
        rows = rows[fed[rows].argsort(descending=True, stable=True)]
        lengths = fed[rows]
        longest = int(lengths[0]) if len(rows) else 0
        inside = torch.arange(longest, device=device) < lengths[:, None]
        completion = sequence[rows, width : width + longest]
        spans = []
        for start in range(0, longest, _WIDTH):
            end, reach = min(start + _WIDTH, longest), int((lengths > start).sum())
            there = inside[:reach, start:end]
            order[completion[:reach, start:end][there]] = laid + there.flatten().nonzero().squeeze(-1)
            laid += there.numel()
            spans.append((start, end, reach))
        causal = torch.ones(longest, length + longest, dtype=torch.bool, device=device).tril(length)
        blocks.append(_Block(prompt, completion, torch.searchsorted(same, group[rows]), causal, tuple(spans)))
    return _Plan(tuple(blocks), order)

"""Sampling from chat messages to text: what evaluation, training and chat share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import output_head
from rlvr_lite.sampling.decode import rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Completion", "Messages", "encode", "eos_ids", "generate", "pad_id", "render"]

#: A prompt: plain text, or the turns of a chat, each with ``role`` and ``content``.
Messages = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        text: decoded without special tokens.
        tokens: how many were sampled, the end token included.
        truncated: whether it was cut at max_new_tokens before an end token.
    """

    text: str
    tokens: int
    truncated: bool


def eos_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends a completion: the tokenizer's own and those of the model's generation config.

    Raises:
        UserError: neither names one.
    """
    config = getattr(output_head(model).causal_lm, "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list | tuple) else [named])} - {None}
    if not ids:
        raise UserError("the tokenizer names no end token: set tokenizer.eos_token, or answers never end")
    return tuple(sorted(ids))


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token, or the end token where the tokenizer has none (masks tell them apart)."""
    chosen = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return 0 if chosen is None else int(chosen)


def render(tokenizer: PreTrainedTokenizerBase, prompt: Messages) -> str:
    """The text that the model continues: messages through the chat template, a string as it is.

    Raises:
        UserError: messages are given and the tokenizer has no chat template.
    """
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template: give prompts as plain strings, or set tokenizer.chat_template"
        )
    return str(tokenizer.apply_chat_template([dict(m) for m in prompt], tokenize=False, add_generation_prompt=True))


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Messages]) -> tuple[Tensor, Tensor]:
    """Token ids int64 ``[P, T]`` padded on the left, and their mask ``[P, T]``.

    Raises:
        UserError: a prompt renders to no token.
    """
    rows = [tokenizer(render(tokenizer, prompt), add_special_tokens=False)["input_ids"] for prompt in prompts]
    for number, ids in enumerate(rows):
        if not ids:
            raise UserError(f"prompt {number} is empty: give at least one token to continue")
    width = max(map(len, rows), default=0)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rows])
    pad = pad_id(tokenizer)
    return torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in rows]), mask


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    k: int,
    sampling: SamplingConfig,
    keys: Sequence[int],
    *,
    max_rows: int = 128,
) -> list[list[Completion]]:
    """``k`` completions of each prompt, in the order of the prompts.

    Prompts of like length are sampled together, at most ``max_rows`` rows at a time; the samples do not depend on it.

    Args:
        model: a causal language model, or a ``PeftModel`` around one; put into eval mode for the time.
        tokenizer: its tokenizer.
        prompts: chat messages or plain text, P of them.
        k: completions a prompt.
        sampling: temperature, top_p, top_k, max_new_tokens.
        keys: P*k 64-bit keys, the k of a prompt next to each other (see ``row_keys``).
        max_rows: rows in the batch, at least 1: bounds the memory of the cache.

    Returns:
        P lists of k completions.
    """
    if len(keys) != len(prompts) * k:
        raise ValueError(f"{len(prompts)} prompts of {k} completions need {len(prompts) * k} keys, got {len(keys)}")
    if not prompts:
        return []
    ids, mask = encode(tokenizer, prompts)
    ends, device = eos_ids(model, tokenizer), output_head(model).weight.device
    order = (
        mask.sum(-1).argsort(descending=True, stable=True).tolist()
    )  # the longest first: it shows if memory is short
    share = min(k, max_rows)
    found: list[list[Completion]] = [[] for _ in prompts]
    for start, first in itertools.product(range(0, len(order), max_rows // share), range(0, k, share)):
        chunk = order[start : start + max_rows // share]
        width, drawn = int(mask[chunk].sum(-1).max()), range(first, min(first + share, k))
        sampled = rollout(
            model,
            ids[chunk, -width:].to(device),
            mask[chunk, -width:].to(device),
            group_size=len(drawn),
            sampling=sampling,
            eos_ids=ends,
            pad_id=pad_id(tokenizer),
            row_keys=[keys[prompt * k + i] for prompt in chunk for i in drawn],
        )
        lengths = sampled.mask.sum(-1).tolist()
        rows = [row[:length] for row, length in zip(sampled.tokens.tolist(), lengths, strict=True)]
        texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
        made = [Completion(text, len(row), row[-1] not in ends) for text, row in zip(texts, rows, strict=True)]
        for i, prompt in enumerate(chunk):
            found[prompt] += made[i * len(drawn) : (i + 1) * len(drawn)]
    return found

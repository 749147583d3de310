"""Sampling from chat messages to text: what evaluation, training and chat share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlvr_lite import bases
from rlvr_lite.errors import UserError, printable
from rlvr_lite.grpo import output_head

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Completion", "Messages", "encode", "eos_ids", "pad_id", "render", "tokenize"]

#: A prompt: plain text, or the turns of a chat, each with ``role`` and ``content``.
Messages = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        text: decoded without special tokens.
        tokens: how many were sampled, the end token included.
        truncated: whether it was cut at max_completion_length before an end token.
        ids: the tokens themselves.
        prompt: what it continues, after the chat template; empty if unknown.
    """

    text: str
    tokens: int
    truncated: bool
    ids: tuple[int, ...] = ()
    prompt: str = ""


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


def render(tokenizer: PreTrainedTokenizerBase, prompt: Messages, template: Mapping[str, Any] | None = None) -> str:
    """The text that the model continues: messages through the chat template, a string as it is.

    A chat that ends in an assistant's turn (such as ``<think>``) is an opening, which the model continues.

    Args:
        tokenizer: with the chat template.
        prompt: a chat or a text.
        template: keyword arguments for the template.

    Raises:
        UserError: messages are given and the tokenizer has no chat template, or one that does not take them.
    """
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template: give prompts as plain strings, or set tokenizer.chat_template"
        )
    turns = [dict(turn) for turn in prompt]
    opened = bool(turns) and turns[-1].get("role") == "assistant"
    how = {"continue_final_message": opened, "add_generation_prompt": not opened}
    try:  # what a stranger's template raises may be anything
        return bases.rendered(tokenizer, turns, **how, **(template or {}))
    except Exception as error:
        said = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        raise UserError(
            f"the chat template of this base does not take these messages ({said}): mend it, or give prompts as strings"
        ) from error


def unpadded(ids: Tensor, mask: Tensor) -> list[list[int]]:
    """The tokens of completions ``[B, T]`` that are padded on the right."""
    return [row[:length] for row, length in zip(ids.tolist(), mask.sum(-1).tolist(), strict=True)]


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Messages], template: Mapping[str, Any] | None = None
) -> tuple[Tensor, Tensor]:
    """Token ids int64 ``[P, T]`` padded on the left, and their mask ``[P, T]``.

    Args:
        tokenizer: of the model.
        prompts: P chats or texts.
        template: keyword arguments for the chat template.

    Raises:
        UserError: a prompt renders to no token.
    """
    return tokenize(tokenizer, [render(tokenizer, prompt, template) for prompt in prompts], prompts)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, rendered: Sequence[str], prompts: Sequence[Messages]
) -> tuple[Tensor, Tensor]:
    """As :func:`encode`, from prompts that are rendered already.

    Args:
        tokenizer: of the model.
        rendered: P texts of :func:`render`.
        prompts: the P chats or texts that they are of.

    Raises:
        UserError: a prompt renders to no token.
    """
    rows = [  # a chat template writes its own first token, before a text the tokenizer may put one
        tokenizer(text, add_special_tokens=isinstance(prompt, str))["input_ids"]
        for text, prompt in zip(rendered, prompts, strict=True)
    ]
    for number, ids in enumerate(rows):
        if not ids:
            raise UserError(f"prompt {number} is empty: give at least one token to continue")
    width = max(map(len, rows), default=0)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rows])
    pad = pad_id(tokenizer)
    return torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in rows]), mask

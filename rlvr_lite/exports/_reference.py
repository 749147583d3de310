"""What a policy answers to fixed prompts, kept beside an export so that anyone can check that it still does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rlvr_lite import tasks
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import output_head
from rlvr_lite.sampling import encode, eos_ids, eval_mode, pad_id, render, rollout, row_keys

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from rlvr_lite.runs import RunRecord

__all__ = ["Distance", "Reference", "answer", "distance", "logits", "prompts_of", "stored_distance", "with_held"]

PROMPTS = 20
TOKENS = 24
_SHOWN = 8


@dataclass(frozen=True)
class Reference:
    """Greedy answers of a policy, and its highest logits at each of their tokens.

    Attributes:
        prompts: the texts.
        ids: tokens of each prompt, by the tokenizer it was trained with.
        answers: tokens of each greedy answer.
        tokens: of each answer, at each token, the ids of the highest logits, the highest first.
        values: those logits.
        held: the logits of the same ids in the export, which may have lost something on the way; empty before it is made.
    """

    prompts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    tokens: tuple[Any, ...]
    values: tuple[Any, ...]
    held: tuple[Any, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {field.name: list(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Reference:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: something is missing.
        """
        try:
            lists = {field.name: tuple(stored[field.name]) for field in dataclasses.fields(cls)}
            return cls(**lists | {name: tuple(map(tuple, lists[name])) for name in ("ids", "answers")})
        except (KeyError, TypeError) as error:
            raise UserError("the reference of this export is damaged: export the run again") from error


@dataclass(frozen=True)
class Distance:
    """How far one policy is from another on the same answers.

    Attributes:
        logits: largest difference of two logits.
        relative: the same over the largest logit.
        greedy: share of tokens at which both would choose the same.
        kl: mean over tokens of KL(first || second), in nats.
    """

    logits: float
    relative: float
    greedy: float
    kl: float

    def to_dict(self) -> dict[str, float]:
        """JSON-able."""
        return {"logits": self.logits, "relative": self.relative, "greedy": self.greedy, "kl": self.kl}


def prompts_of(run: RunRecord, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Held-out problems of the run's task as they are put to the model; those of its fingerprint if it has no task."""
    style = run.config.prompt_style or "instruct"
    try:
        task = tasks.recall(run.config.task, run.config.task_options, near=run.directory)
        split = "test" if "test" in task.splits else task.splits[0]
        return [render(tokenizer, task.messages(problem, style)) for problem in _first(task, split)]
    except UserError:  # problems that came in memory, or whose files are elsewhere
        recorded = run.adapter["facts"].get("fingerprint") or {"prompts": ["1+1="]}
        return list(recorded["prompts"])


def _first(task: tasks.Task, split: str) -> list[tasks.Problem]:
    try:
        return task.problems(split, PROMPTS)  # a generated task draws no more than these
    except UserError:
        return task.problems(split)


def answer(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> tuple[Reference, list[Tensor]]:
    """Greedy answers, and the logits ``[T, V]`` at each token of each answer."""
    ids, mask = encode(tokenizer, list(prompts))
    place = output_head(model).weight.device
    drawn = rollout(
        model,
        ids.to(place),
        mask.to(place),
        group_size=1,
        sampling=SamplingConfig(temperature=0, max_completion_length=TOKENS),
        eos_ids=eos_ids(model, tokenizer),
        pad_id=pad_id(tokenizer),
        row_keys=row_keys(0, "export", rows=len(prompts)),
    )
    texts = [tuple(row[keep.bool()].tolist()) for row, keep in zip(ids, mask, strict=True)]
    answers = [tuple(row[keep.bool()].tolist()) for row, keep in zip(drawn.tokens, drawn.mask, strict=True)]
    rows = logits(model, texts, answers)
    top = [row.topk(min(_SHOWN, row.shape[-1]), dim=-1) for row in rows]
    tokens, values = tuple(t.indices.tolist() for t in top), tuple(_numbers(t.values) for t in top)
    return Reference(tuple(prompts), tuple(texts), tuple(answers), tokens, values), rows


def _numbers(values: Tensor) -> list[list[float]]:
    """Rows of numbers with the digits that fp32 has."""
    return [[float(f"{value:.8g}") for value in row] for row in values.tolist()]


def with_held(reference: Reference, rows: Sequence[Tensor]) -> Reference:
    """The same with the logits ``[T, V]`` of the export."""
    shown = zip(rows, reference.tokens, strict=True)
    held = tuple(_numbers(row.gather(-1, torch.tensor(tokens))) for row, tokens in shown)
    return dataclasses.replace(reference, held=held)


@torch.no_grad()
def logits(model: nn.Module, ids: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits ``[T, V]``, float32 on the CPU, that choose each token of each answer; one sequence at a time."""
    head = output_head(model)
    rows = []
    with eval_mode(model):
        for prompt, tail in zip(ids, answers, strict=True):
            row = torch.tensor([[*prompt, *tail[:-1]]], device=head.weight.device)
            hidden = head.backbone(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state
            rows.append(head.logits(hidden[0, len(prompt) - 1 :]).float().cpu())
    return rows


def distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Distance:
    """How far ``second`` is from ``first``: two lists of logits ``[T, V]`` on the same tokens."""
    a, b = torch.cat(list(first)).double(), torch.cat(list(second)).double()
    log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    apart = float((a - b).abs().max())
    same = (a.argmax(-1) == b.argmax(-1)).double().mean()
    return Distance(apart, apart / max(float(a.abs().max()), 1e-6), float(same), max(0.0, float(kl)))


def stored_distance(reference: Reference, stored: Sequence[Any], rows: Sequence[Tensor]) -> Distance:
    """How far logits are from stored ones (``values`` or ``held``); the KL is not known from them."""
    shown = [row.gather(-1, torch.tensor(tokens)) for row, tokens in zip(rows, reference.tokens, strict=True)]
    expected = torch.cat([torch.tensor(values) for values in stored])
    apart = float((torch.cat(shown) - expected).abs().max())  # NaN if there is any
    first = torch.cat([torch.tensor(tokens)[:, 0] for tokens in reference.tokens])
    same = (torch.cat([row.argmax(-1) for row in rows]) == first).double().mean()
    return Distance(apart, apart / max(float(expected.abs().max()), 1e-6), float(same), math.nan)

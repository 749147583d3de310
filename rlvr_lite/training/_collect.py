"""One generation batch: prompts, completions, rewards, the groups worth keeping, advantages."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlvr_lite import grpo, sampling
from rlvr_lite.config import SamplingConfig
from rlvr_lite.rewards import thinking_open
from rlvr_lite.training._at_once import CompletionsAtOnce
from rlvr_lite.training._generation_batch import join, on_device
from rlvr_lite.training._order import generation_prompts, refill
from rlvr_lite.training._parallel import Processes
from rlvr_lite.training._rollout_func import RolloutFunction
from rlvr_lite.training._scoring import RewardStats, combine, normalized, of_functions, of_lengths

__all__ = ["Collector", "GenerationBatch"]

#: ``(rows, completions as texts or chats, token ids) -> rewards [B, F]``, NaN where a function gave none, and what the
#: functions noted about each completion.
Score = Callable[[list[dict[str, Any]], list[Any], list[list[int]]], tuple[Tensor, list[dict[str, Any]]]]


@dataclass(frozen=True)
class GenerationBatch:
    """What :meth:`Collector.collect` brings home.

    Attributes:
        rollouts: completions of whole groups with their advantages.
        metrics: numbers for the log.
        samples: a row a completion, for ``rollouts.jsonl``.
        prompts: of each completion, text or chat.
        completions: as the reward functions saw them.
    """

    rollouts: grpo.RolloutBatch
    metrics: dict[str, float]
    samples: list[dict[str, Any]]
    prompts: list[Any]
    completions: list[Any]


@dataclass
class _Round:
    """Groups of one generation, before selection: rollouts without advantages, rewards ``[P, G]``, readable rows."""

    rollouts: grpo.RolloutBatch
    rewards: Tensor
    by_function: Tensor
    samples: list[dict[str, Any]]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Collector:
    """Draws generation batches as a function of ``(seed, number)`` and of the policy.

    Attributes:
        model: the policy.
        tokenizer: pads left; its chat template puts chats into text.
        dataset: rows with a ``prompt`` (text or chat) and whatever columns the reward functions read.
        score: calls the reward functions.
        reward_names: their names.
        reward_weights: ``[F]``.
        sampling_config: how completions are drawn.
        group_size: completions a prompt (G).
        prompts: groups a generation batch (P).
        seed: of the run.
        shuffle: whether each epoch has its own order.
        max_resample: rounds of fresh prompts for groups without variance.
        advantage_scale: ``group``, ``batch`` or ``none``.
        aggregation: ``sum_then_normalize`` or ``normalize_then_sum``, of several reward functions (TRL).
        rollout: a user's own way from prompts to completions, in place of the sampler (TRL's ``rollout_func``).
        eos_ids: tokens that end a completion.
        mask_truncated: leave completions without an end token out of the loss.
        sampler: who samples the completions.
        at_once: how many of them together.
        template: keyword arguments for the chat template.
        processes: those that share the sampling and the scoring; each comes to hold the whole generation batch.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    dataset: Any
    score: Score
    reward_names: Sequence[str]
    reward_weights: Tensor
    sampling_config: SamplingConfig
    group_size: int
    prompts: int
    seed: int
    shuffle: bool
    max_resample: int
    advantage_scale: Literal["group", "batch", "none"]
    aggregation: str
    rollout: RolloutFunction | None
    eos_ids: Sequence[int]
    mask_truncated: bool
    sampler: sampling.Sampler
    template: Mapping[str, Any]
    at_once: CompletionsAtOnce = field(default_factory=lambda: CompletionsAtOnce(None, None))
    processes: Processes = field(default_factory=Processes)

    def collect(self, number: int) -> GenerationBatch:
        """Sample, score and select the groups of generation batch ``number``.

        Groups without variance carry no gradient. With ``max_resample`` rounds left their places are given to fresh
        prompts (dynamic sampling, DAPO, arXiv 2503.14476, section 3.2); places still empty after the last round are
        filled with the groups that were set aside, which changes the normaliser of the loss but not its gradient.
        """
        started = time.perf_counter()
        chosen = generation_prompts(self.seed, number, self.prompts, len(self.dataset), shuffle=self.shuffle)
        used: list[int] = []
        rounds: list[_Round] = []
        groups: list[tuple[_Round, int]] = []
        live = 0
        while chosen:
            rounds.append(self._round(number, len(rounds), chosen))
            groups += [(rounds[-1], g) for g in range(len(chosen))]
            used += chosen
            live = int(grpo.live_groups(_rewards(groups)).sum())
            if live >= self.prompts or len(rounds) > self.max_resample:
                break
            missing = self.prompts - live
            chosen = refill(self.seed, number, len(rounds), missing, len(self.dataset), used)
        kept = [groups[i] for i in grpo.select_groups(_rewards(groups), self.prompts, fill=True).tolist()]
        first = RewardStats.of(rounds[0].rewards)
        tokens = sum(int(r.rollouts.mask.sum()) for r in rounds)
        seconds = time.perf_counter() - started
        batch = self._assemble(kept, self.group_size)
        batch.metrics.update(
            {
                "reward": first.reward,
                "reward_std": first.reward_std,
                "frac_reward_zero_std": first.zero_variance,
                "invalid_rewards": first.invalid,
                "groups/drawn": float(len(groups)),
                "groups/kept": float(min(live, self.prompts)),
                "tokens/sampled": float(tokens),
                "tokens/per_second": tokens / seconds,
                "time/collect": seconds,
            }
        )
        return batch

    def collect_rows(self, rows: Sequence[Mapping[str, Any]], keys: list[int], group_size: int) -> GenerationBatch:
        """Completions of just these rows, scored; none of them is replaced."""
        drawn = self._scored(rows, list(range(len(rows))), keys, group_size, 0)
        batch = self._assemble([(drawn, g) for g in range(len(rows))], group_size)
        stats = RewardStats.of(drawn.rewards)
        batch.metrics.update(
            {"reward": stats.reward, "reward_std": stats.reward_std, "frac_reward_zero_std": stats.zero_variance}
        )
        return batch

    def draw(
        self,
        rows: Sequence[Mapping[str, Any]],
        keys: list[int],
        group_size: int,
        shown: Sequence[str] | None = None,
    ) -> grpo.RolloutBatch:
        """Completions of the prompts of ``rows``, of which each process samples its share.

        Args:
            rows: P rows with a ``prompt``.
            keys: of the P*G completions.
            group_size: completions a prompt (G).
            shown: the prompts as :meth:`rendered`, where they are known.
        """
        if self.rollout is not None:
            prompts = [row["prompt"] for row in rows for _ in range(group_size)]
            return self.rollout(prompts, next(self.model.parameters()).device)
        shown = self.rendered(rows) if shown is None else shown
        if self.processes.count == 1:
            return self.sample(rows, keys, group_size, shown)
        groups = self.processes.share(range(len(rows)))
        own = None
        if groups:
            own_keys = keys[groups[0] * group_size : (groups[-1] + 1) * group_size]
            sampled = self.sample([rows[i] for i in groups], own_keys, group_size, [shown[i] for i in groups])
            own = on_device(sampled, torch.device("cpu"))
        parts = [part for part in self.processes.gather(own) if part is not None]
        return on_device(join(parts, self._pad_id), next(self.model.parameters()).device)

    def sample(
        self, rows: Sequence[Mapping[str, Any]], keys: list[int], group_size: int, shown: Sequence[str]
    ) -> grpo.RolloutBatch:
        """Completions of the prompts of ``rows``; what does not fit in memory at once is sampled in smaller portions."""
        prompts = [row["prompt"] for row in rows]
        device = next(self.model.parameters()).device
        portions = sampling.even_portions(len(prompts), group_size, self.at_once.rows)
        parts = sampling.sample_portions(
            self.sampler, portions, prompts, group_size, self.sampling_config, keys, on_halved=self.at_once.lower
        )
        drawn = sampling.joined(list(parts), group_size, self._pad_id)
        ids, mask = (x.to(device) for x in sampling.tokenize(self.tokenizer, shown, prompts))
        zeros = torch.zeros(len(drawn), device=device)
        return grpo.RolloutBatch(
            prompt_ids=ids.repeat_interleave(group_size, 0),
            prompt_mask=mask.repeat_interleave(group_size, 0),
            completions=drawn.ids.to(device),
            mask=drawn.mask.to(device),
            advantages=zeros,
            weights=zeros,
            sampled_logprobs=drawn.logprobs.to(device),
        )

    @property
    def _pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def judge(
        self, rows: Sequence[Mapping[str, Any]], rollouts: grpo.RolloutBatch, group_size: int, shown: Sequence[str]
    ) -> tuple[Tensor, list[str], list[dict[str, Any]]]:
        """Rewards ``[B, F]``, texts and notes of completions sampled for ``rows``; each process scores its share."""
        lengths = rollouts.mask.sum(1).tolist()
        tokens = [ids[:n] for ids, n in zip(rollouts.completions.tolist(), lengths, strict=True)]
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        repeated = [
            {"rendered_prompts": prompt, **row}
            for prompt, row in zip(shown, rows, strict=True)
            for _ in range(group_size)
        ]
        if self.rollout is not None:
            repeated = [row | extra for row, extra in zip(repeated, self.rollout.columns, strict=True)]
        chats = [_as_asked(text, row["prompt"]) for text, row in zip(texts, repeated, strict=True)]
        if self.processes.count == 1:
            rewards, noted = self.score(repeated, chats, tokens)
            return rewards, texts, noted
        # TRL gathers the rewards of all processes and expects as many from each: the last group fills up.
        share = -(-len(rows) // self.processes.count)
        first = self.processes.rank * share
        own = [min(g, len(rows) - 1) * group_size + i for g in range(first, first + share) for i in range(group_size)]
        rewards, noted = self.score([repeated[i] for i in own], [chats[i] for i in own], [tokens[i] for i in own])
        every = [note for part in self.processes.gather(noted) for note in part]
        return rewards[: len(texts)], texts, every[: len(texts)]

    def rendered(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What the completions of ``rows`` continue, after the chat template, which may open a thought."""
        return [sampling.render(self.tokenizer, row["prompt"], self.template) for row in rows]

    def _round(self, number: int, attempt: int, chosen: Sequence[int]) -> _Round:
        rows = [self.dataset[i] for i in chosen]
        keys = sampling.row_keys(self.seed, "train", number, attempt, rows=len(rows) * self.group_size)
        return self._scored(rows, chosen, keys, self.group_size, number)

    def _scored(
        self, rows: Sequence[Mapping[str, Any]], chosen: Sequence[int], keys: list[int], group_size: int, number: int
    ) -> _Round:
        shown = self.rendered(rows)
        rollouts = self.draw(rows, keys, group_size, shown)
        by_function, texts, noted = self.judge(rows, rollouts, group_size, shown)
        weights = self.reward_weights.to(by_function.device)
        rewards = combine(by_function, weights).view(-1, group_size)
        totals, each = rewards.flatten().tolist(), by_function.tolist()
        ended = self.ended(rollouts).tolist()
        lengths = rollouts.mask.sum(1).tolist()
        opened = [thinking_open(prompt) for prompt in shown]
        samples = [
            {
                "generation_batch": number,
                "prompt": chosen[i // group_size],
                "id": rows[i // group_size].get("id"),
                "answer": rows[i // group_size].get("answer"),
                "completion": texts[i],
                "reward": _number(totals[i]),
                "rewards": dict(zip(self.reward_names, map(_number, each[i]), strict=True)),
                "tokens": lengths[i],
                "truncated": not ended[i],
            }
            | ({"extra": noted[i]} if noted[i] else {})
            | ({"opened": True} if opened[i // group_size] else {})
            for i in range(len(texts))
        ]
        return _Round(rollouts, rewards, by_function, samples, rows)

    def ended(self, rollouts: grpo.RolloutBatch) -> Tensor:
        """Which completions have an end token, bool ``[B]``; the others were cut."""
        last = rollouts.mask.sum(1, keepdim=True) - 1
        ends = torch.tensor(list(self.eos_ids), device=last.device)
        return torch.isin(rollouts.completions.gather(1, last).squeeze(1), ends)

    def _assemble(self, kept: Sequence[tuple[_Round, int]], size: int) -> GenerationBatch:
        """The kept groups as one generation batch, with advantages over just these groups."""
        spans = [(r, torch.arange(g * size, (g + 1) * size, device=r.rewards.device)) for r, g in kept]
        rollouts = join([r.rollouts.rows(rows) for r, rows in spans], self._pad_id)
        by_function = torch.cat([r.by_function[rows] for r, rows in spans])
        if self.aggregation == "normalize_then_sum":
            advantages = normalized(by_function, self.reward_weights.to(by_function.device), size)
        else:
            advantages = grpo.group_advantages(_rewards(kept), scale=self.advantage_scale).flatten()
        ended, mask = self.ended(rollouts), rollouts.mask
        metrics = of_lengths(mask.sum(1), ended) | of_functions(by_function, self.reward_names)
        metrics |= self.sampler.metrics()
        if self.mask_truncated:
            mask = mask * ended[:, None].to(mask.dtype)
        rollouts = dataclasses.replace(rollouts, advantages=advantages.to(rollouts.advantages), mask=mask)
        samples = [dict(r.samples[i]) for r, rows in spans for i in rows.tolist()]
        prompts = [r.rows[g]["prompt"] for r, g in kept for _ in range(size)]
        for sample, advantage in zip(samples, advantages.tolist(), strict=True):
            sample["advantage"] = round(advantage, 6)
        completions = [_as_asked(s["completion"], p) for s, p in zip(samples, prompts, strict=True)]
        return GenerationBatch(rollouts, metrics, samples, prompts, completions)


def _as_asked(text: str, prompt: Any) -> Any:
    """A completion in the form of its prompt: text, or a chat of one turn."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _rewards(groups: Sequence[tuple[_Round, int]]) -> Tensor:
    """Rewards ``[P, G]`` of groups picked from rounds."""
    return torch.stack([r.rewards[g] for r, g in groups])


def _number(value: float) -> float | None:
    return None if value != value else value

"""A look before the leap: a few groups sampled and scored, and what they say about the run to come."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlvr_lite import grpo, sampling
from rlvr_lite.errors import printable
from rlvr_lite.rewards import extract, unreadable_golds
from rlvr_lite.training._checkpoints import generator_states, restore_generators
from rlvr_lite.training._scoring import combine

if TYPE_CHECKING:
    from rlvr_lite.training._collect import Collector
    from rlvr_lite.training._trainer import GRPOTrainer

__all__ = ["Preflight", "preflight"]

_GROUPS = 4
_TRUNCATED, _UNREADABLE, _IDLE = 0.2, 0.5, 0.95
_ENOUGH = 30  # problems of AIME, the smallest set that the field scores on


@dataclass(frozen=True)
class Preflight:
    r"""What a sample of rollouts looks like before the first step.

    Attributes:
        completions: how many were sampled.
        max_completion_length: where they are cut, in tokens.
        truncated: share that was cut there.
        unreadable: share without an answer in ``\boxed{}``.
        idle: share of groups whose rewards are all the same, which teach nothing.
        reward: mean reward.
        seconds_per_step: predicted from the sample, forward and backward included where it had a signal.
        unreadable_golds: golds of the data set that the verifier cannot read, where it is what rewards; all answers to them
            go without a verdict.
        scored_on: problems that the run is scored on; ``None`` if it is not.
        sampled_from: what the completions are drawn from, where it is not the model that is trained.
    """

    completions: int
    max_completion_length: int
    truncated: float
    unreadable: float
    idle: float
    reward: float
    seconds_per_step: float
    unreadable_golds: tuple[str, ...] = ()
    scored_on: int | None = None
    sampled_from: str = ""

    def warnings(self) -> list[str]:
        r"""What is likely to go wrong, each with what to do about it.

        >>> Preflight(32, 256, 0.75, 0.1, 0.5, 0.2, 3.0).warnings()
        ['75 % of the answers are cut at 256 tokens and can earn nothing: raise max_completion_length']
        """
        found = []
        if self.truncated > _TRUNCATED:
            found.append(
                f"{100 * self.truncated:.0f} % of the answers are cut at {self.max_completion_length} tokens and can earn "
                "nothing: raise max_completion_length"
            )
        if self.unreadable > max(_UNREADABLE, self.truncated):
            found.append(
                f"{100 * self.unreadable:.0f} % of the answers have no \\boxed{{}}: use prompt_style 'instruct', or a base "
                "that follows instructions"
            )
        if self.unreadable_golds:
            first = "; ".join(repr(gold[:40]) for gold in self.unreadable_golds[:3])
            found.append(
                f"{len(self.unreadable_golds):,} golds cannot be read, so no answer to them is judged (the first: {first}): "
                "write the answer alone, as mathematics or a few words"
            )
        if self.idle > _IDLE:
            advice = "an easier task" if self.reward < 0.5 else "a harder task"
            found.append(
                f"in {100 * self.idle:.0f} % of the groups all answers earn the same, so nothing can be learned from them: "
                f"take {advice}, a larger group_size, or max_resample"
            )
        if self.scored_on is not None and self.scored_on < _ENOUGH:
            found.append(
                f"only {self.scored_on} problems to score on, so that the intervals will be wide: give more rows, a test set "
                "of its own (task option test), or a larger eval_problems"
            )
        return found

    def __str__(self) -> str:
        share = f"{100 * self.truncated:.0f} % cut, {100 * self.unreadable:.0f} % without an answer"
        lines = [
            f"before training: mean reward {self.reward:.2f}, {share}, {100 * self.idle:.0f} % zero-advantage groups; "
            f"about {self.seconds_per_step:.2g} s a step"
        ]
        if self.sampled_from:
            lines.append(f"rollouts from {self.sampled_from}")
        return printable("\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings())]))


def preflight(trainer: GRPOTrainer, *, scored_on: int | None = None, reads_boxes: bool = True) -> Preflight:
    r"""Sample, score and differentiate a few groups of the first generation batch; the policy and all random states stay.

    Args:
        trainer: about to train.
        scored_on: problems that the run is scored on.
        reads_boxes: whether what judges the answers reads ``\boxed{}``.
    """
    collector, size = trainer.collector, trainer.num_generations
    sampler = collector.sampler
    groups = min(_GROUPS, collector.prompts, len(collector.dataset))
    started = time.perf_counter()
    rows: list[dict[str, Any]] = [collector.dataset[i] for i in range(groups)]
    keys = sampling.row_keys(collector.seed, "preflight", rows=groups * size)
    shown = collector.rendered(rows)
    rollouts = collector.draw(rows, keys, size, shown)
    by_function, texts, _ = collector.judge(rows, rollouts, size, shown)
    rewards = combine(by_function, collector.reward_weights.to(by_function.device)).view(groups, size)
    advantages = grpo.group_advantages(rewards, scale=collector.advantage_scale).flatten()
    batch = trainer.scored(dataclasses.replace(rollouts, advantages=advantages))
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    states = generator_states()  # dropout draws from them
    trainer.model.train()
    trainer.accumulate(batch)
    restore_generators(states)
    trainer.model.zero_grad(set_to_none=True)
    trainer.forget_metrics()
    valid, pairs = rewards[~rewards.isnan()], zip(texts, [prompt for prompt in shown for _ in range(size)], strict=True)
    return Preflight(
        completions=len(rollouts),
        max_completion_length=collector.sampling_config.max_completion_length,
        truncated=float((~collector.ended(rollouts)).float().mean()),
        unreadable=sum(extract(*pair).answer is None for pair in pairs) / len(texts) if reads_boxes else 0.0,
        idle=1 - float(grpo.live_groups(rewards).float().mean()),
        reward=float(valid.mean()) if len(valid) else 0.0,
        unreadable_golds=_unread(collector) if reads_boxes and "accuracy" in collector.reward_names else (),
        seconds_per_step=(time.perf_counter() - started) * collector.prompts / groups,
        scored_on=scored_on,
        sampled_from=f"{sampler.weights}, in {sampler.precision}" if sampler.name != "transformers" else "",
    )


def _unread(collector: Collector) -> tuple[str, ...]:
    """The golds that the verifier cannot read; of a stream, which has no columns to look at, none."""
    columns = getattr(collector.dataset, "column_names", None) or ()
    return tuple(unreadable_golds([str(gold) for gold in collector.dataset["answer"]])) if "answer" in columns else ()

"""The accuracy of a policy on a task, as every run and every study takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlvr_lite.config import RunConfig, SamplingConfig
from rlvr_lite.evaluation import Score, score
from rlvr_lite.tasks import Task

__all__ = ["accuracy"]


def accuracy(
    model: Any, tokenizer: Any, task: Task, config: RunConfig, *, name: str, log: Path, progress: bool = False
) -> Score:
    """Score a policy on the problems that a run holds out, with the run's prompts, sampling and seed.

    Args:
        model: base or adapted model.
        tokenizer: its tokenizer.
        task: of the run.
        config: of the run, every field filled in.
        name: shown on the bar, and part of every answer's random key.
        log: JSON lines, one an answer; what is there already is not sampled again.
        progress: whether to show a bar.
    """
    return score(
        model,
        tokenizer,
        task.at_most(config.eval_split, config.eval_problems or 0),
        messages=lambda problem: task.messages(problem, config.prompt_style or "instruct"),
        k=config.eval_k,
        sampling=SamplingConfig(temperature=config.temperature, max_new_tokens=config.max_completion_length or 1),
        seed=config.seed,
        name=name,
        log=log,
        progress=progress,
    )

"""The accuracy of a policy on a task, as every run and every study takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlvr_lite.config import SamplingConfig
from rlvr_lite.evaluation import Score, score
from rlvr_lite.training._grading import Objective

__all__ = ["accuracy"]


def accuracy(
    model: Any, tokenizer: Any, objective: Objective, *, name: str, log: Path, progress: bool = False
) -> Score:
    """Score a policy by what it is trained on, on the problems held out, with the run's prompts, sampling and seed.

    Args:
        model: base or adapted model.
        tokenizer: its tokenizer.
        objective: of the run.
        name: shown on the bar, and part of every answer's random key.
        log: JSON lines, one an answer; what is there already is not sampled again.
        progress: whether to show a bar.
    """
    task, config = objective.task, objective.config
    return score(
        model,
        tokenizer,
        task.at_most(config.eval_split, config.eval_problems or 0),
        messages=lambda problem: task.messages(problem, config.prompt_style or "instruct"),
        k=config.eval_k,
        sampling=SamplingConfig(
            temperature=config.temperature, max_completion_length=config.max_completion_length or 1
        ),
        seed=config.seed,
        name=name,
        log=log,
        grade=objective.grade(),
        progress=progress,
    )

"""Score a policy on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from rlvr_lite.config import Option, Precision, PromptStyle
from rlvr_lite.errors import UserError

__all__ = ["evaluate"]


def evaluate(
    policy: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    benchmarks: tuple[str, ...] | None = None,
    k: int | None = None,
    preset: Literal["paper", "quick", "greedy"] = "quick",
    n: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_completion_length: int | None = None,
    seed: int = 0,
    style: PromptStyle | None = None,
    adapter: Path | None = None,
    precision: Precision = "auto",
    revision: str | None = None,
    chat_template_kwargs: dict[str, Option] | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    out: Path | None = None,
    progress: bool = True,
    wait: bool = False,
    power: bool = False,
    comparisons: int = 1,
) -> None:
    """Score a run or a model on benchmarks, with 95 % intervals; or, before anything is run, ask what they can show.

    Args:
        policy: a run's directory, a local model directory or a Hub model id.
        benchmarks: names of `rlvr-lite benchmarks`, TASK:SPLIT or NAME=FILE.jsonl, separated by commas or spaces.
        k: answers a problem; by default the preset's.
        preset: `paper` as in arXiv 2512.23165, `quick` for at most 100 problems, `greedy` for one answer each.
        n: problems a benchmark at most.
        temperature: of the drawn answers; by default the preset's.
        top_p: smallest set of tokens whose probability reaches this is kept; by default the preset's.
        max_completion_length: longest answer in tokens; by default the preset's, as far as task and base have room for it.
        seed: of the drawn answers.
        style: how problems are put to the model.
        adapter: directory of an adapter on that model.
        precision: of the base.
        revision: of a Hub model.
        chat_template_kwargs: variables of the chat template as NAME VALUE, such as `enable_thinking False`.
        engine: who draws the answers.
        out: directory for the results; a run has its own.
        progress: show progress bars; -q shows none.
        wait: if another process evaluates into that directory, wait until it is done.
        power: needs no policy: the smallest difference in avg@k that each benchmark (by default the paper's six) can show.
        comparisons: with `--power`: methods compared with the reference, for Holm's correction.
    """
    if power:
        if policy is not None:
            raise UserError(f"--power is asked before anything is run: leave {policy} out")
        from rlvr_lite.evaluation import PAPER, power_table

        names = list(benchmarks) if benchmarks else PAPER
        print(power_table(names, k, problems=n, comparisons=comparisons))
        return
    if policy is None:
        raise UserError("name what to evaluate: a run's directory, a model, or --power for what benchmarks can show")
    from rlvr_lite.evaluation import evaluate as run_evaluation

    print(
        run_evaluation(
            policy,
            benchmarks,
            k,
            preset,
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_completion_length=max_completion_length,
            seed=seed,
            style=style,
            adapter=adapter,
            precision=precision,
            revision=revision,
            chat_template_kwargs=chat_template_kwargs,
            engine=engine,
            out=out,
            progress=progress,
            wait=wait,
        )
    )

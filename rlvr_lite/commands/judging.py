"""Commands that score answers and list what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from rlvr_lite.config import Precision, PromptStyle
from rlvr_lite.errors import UserError

__all__ = ["benchmarks", "evaluate", "methods", "tasks", "verify"]

_Run = Annotated[Path, tyro.conf.Positional]


def evaluate(
    policy: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    benchmarks: Annotated[str | None, tyro.conf.arg(aliases=["--benchmark"])] = None,
    k: int | None = None,
    preset: Literal["paper", "quick", "greedy"] = "quick",
    n: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    style: PromptStyle | None = None,
    adapter: Path | None = None,
    precision: Precision = "auto",
    revision: str | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    out: Path | None = None,
    quiet: bool = False,
    power: bool = False,
    comparisons: int = 1,
) -> None:
    """Score a run or a model on benchmarks, with 95 % intervals; or, before anything is run, ask what they can show.

    Args:
        policy: a run's directory, a local model directory or a Hub model id.
        benchmarks: names of `rlvr-lite benchmarks`, TASK:SPLIT or NAME=FILE.jsonl, separated by commas.
        k: answers a problem; by default the preset's.
        preset: `paper` as in arXiv 2512.23165, `quick` for at most 100 problems, `greedy` for one answer each.
        n: problems a benchmark at most.
        temperature: of the drawn answers; by default the preset's.
        top_p: smallest set of tokens whose probability reaches this is kept; by default the preset's.
        max_new_tokens: longest answer in tokens.
        seed: of the drawn answers.
        style: how problems are put to the model.
        adapter: directory of an adapter on that model.
        precision: of the base.
        revision: of a Hub model.
        engine: who draws the answers.
        out: directory for the results; a run has its own.
        quiet: no progress bars.
        power: needs no policy: the smallest difference in avg@k that each benchmark (by default the paper's six) can show.
        comparisons: with `--power`: methods compared with the reference, for Holm's correction.
    """
    if power:
        if policy is not None:
            raise UserError(f"--power is asked before anything is run: leave {policy} out")
        from rlvr_lite.evaluation import PAPER, power_table

        names = [name.strip() for name in benchmarks.split(",")] if benchmarks else PAPER
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
            max_new_tokens=max_new_tokens,
            seed=seed,
            style=style,
            adapter=adapter,
            precision=precision,
            revision=revision,
            engine=engine,
            out=out,
            progress=not quiet,
        )
    )


def benchmarks() -> None:
    """List the benchmarks."""
    from rlvr_lite.evaluation import list_benchmarks

    print(list_benchmarks())


def verify(
    gold: Annotated[str | None, tyro.conf.Positional] = None,
    answer: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    audit: Path | None = None,
) -> None:
    r"""Explain the verdict on an answer, or look for doubtful verdicts in a run.

    Args:
        gold: the right answer.
        answer: a completion, or just what stands in \boxed{}.
        audit: a run's directory; lists the verdicts that a second opinion disagrees with.
    """
    from rlvr_lite import rewards

    if audit is not None:
        from rlvr_lite.training import Run

        print(rewards.audit(Run.load(audit).rollouts()))
    elif gold is None or answer is None:
        raise UserError("give the right answer and the one to judge, or --audit RUN")
    else:
        print(rewards.explain(gold, answer))


def methods(*, base: str | None = None) -> None:
    """List the adapter methods.

    Args:
        base: to see trained parameters on it; by default DeepSeek-R1-Distill-Qwen-1.5B, for which nothing is loaded.
    """
    from rlvr_lite.methods import list_methods

    if base is None:
        print(list_methods())
        return
    from rlvr_lite.bases import locate

    print(list_methods(locate(base).folder))


def tasks() -> None:
    """List the tasks."""
    from rlvr_lite.tasks import list_tasks

    print(list_tasks())

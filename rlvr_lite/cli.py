"""The command line: one function a command, with the signature of the Python call."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rlvr_lite.config import Precision, PromptStyle, RunConfig
from rlvr_lite.errors import UserError

__all__ = ["main"]

_Run = Annotated[Path, tyro.conf.Positional]


def demo(
    *, out: Path = Path("runs/demo"), methods: tuple[str, ...] = ("lora", "dora", "full"), steps: int = 40
) -> None:
    """Train a few methods on the embedded base and show what they learned; some two minutes, offline.

    Args:
        out: where runs, curves and the page are written.
        methods: which methods.
        steps: optimizer steps of each.
    """
    from rlvr_lite.demo import demo as run_demo

    run_demo(out, methods=methods, steps=steps)


def train(config: tyro.conf.OmitArgPrefixes[RunConfig], *, out: Path | None = None, quiet: bool = False) -> None:
    """Train one adapter, prove what was trained, and score it before and after.

    Args:
        config: the run.
        out: its directory; by default one under runs/ named after what is run. Calling again continues a stopped run.
        quiet: no progress bars.
    """
    from rlvr_lite.training import train as run_training

    print(run_training(config.method, config.base, config.task, config=config, out=out, progress=not quiet))


def evaluate(
    policy: Annotated[str, tyro.conf.Positional],
    *,
    benchmarks: str | None = None,
    k: int | None = None,
    preset: Literal["paper", "quick", "greedy"] = "quick",
    n: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    style: PromptStyle | None = None,
    adapter: Path | None = None,
    precision: Precision = "auto",
    revision: str | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    out: Path | None = None,
    quiet: bool = False,
) -> None:
    """Score a run or a model on benchmarks, with 95 % intervals.

    Args:
        policy: a run's directory, a local model directory or a Hub model id.
        benchmarks: names of `rlvr-lite benchmarks`, TASK:SPLIT or NAME=FILE.jsonl, separated by commas.
        k: answers a problem; by default the preset's.
        preset: `paper` as in arXiv 2512.23165, `quick` for at most 100 problems, `greedy` for one answer each.
        n: problems a benchmark at most.
        max_new_tokens: longest answer in tokens.
        seed: of the drawn answers.
        style: how problems are put to the model.
        adapter: directory of an adapter on that model.
        precision: of the base.
        revision: of a Hub model.
        engine: who draws the answers.
        out: directory for the results; a run has its own.
        quiet: no progress bars.
    """
    from rlvr_lite.evaluation import evaluate as run_evaluation

    print(
        run_evaluation(
            policy,
            benchmarks,
            k,
            preset,
            n=n,
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


def power(*, benchmarks: str | None = None, k: int | None = None, comparisons: int = 1) -> None:
    """Before a run is started: the smallest difference in avg@k that each benchmark could show.

    Args:
        benchmarks: names of `rlvr-lite benchmarks`, separated by commas; by default the six of the paper.
        k: answers a problem; by default the paper's.
        comparisons: methods compared with the reference, for Holm's correction.
    """
    from rlvr_lite.evaluation import PAPER, power_table

    print(power_table(benchmarks.split(",") if benchmarks else PAPER, k, comparisons=comparisons))


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
        from rlvr_lite.face import load

        print(rewards.audit(load(audit).rollouts()))
    elif gold is None or answer is None:
        raise UserError("give the right answer and the one to judge, or --audit RUN")
    else:
        print(rewards.explain(gold, answer))


def methods(*, base: str | None = None) -> None:
    """List the adapter methods.

    Args:
        base: a local model directory, to see trained parameters on it.
    """
    from rlvr_lite.methods import list_methods

    print(list_methods(base))


def tasks() -> None:
    """List the tasks."""
    from rlvr_lite.tasks import list_tasks

    print(list_tasks())


def show(run: _Run, *, samples: int = 0, plot: Path | None = None) -> None:
    """Show a run: its outcome, some of its answers, its curves.

    Args:
        run: the run's directory.
        samples: how many completions of the last step to print.
        plot: write the training curves to this picture.
    """
    from rlvr_lite.face import load

    found = load(run)
    print(found)
    rows = found.rollouts()
    for row in [row for row in rows if row["step"] == rows[-1]["step"]][:samples] if rows else []:
        print(f"\n{row['id']}  answer {row['answer']}  reward {row['reward']}\n{row['completion']}")
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")


def spectrum(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    cache: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Where in the spectrum of the base weights did training go?

    Args:
        runs: directories of runs on the same base.
        cache: directory that keeps the base's decompositions, for the next call.
        plot: write the plots to this picture.
    """
    from rlvr_lite.face import spectrum as measure

    found = measure(list(runs), cache=cache)
    print(found)
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")


_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "train": train,
    "eval": evaluate,
    "show": show,
    "spectrum": spectrum,
    "verify": verify,
    "power": power,
    "methods": methods,
    "tasks": tasks,
    "benchmarks": benchmarks,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a mistake of the user's ends in one line and exit status 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to their developers, not to the user
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # names an optional kernel at each start
    try:
        tyro.extras.subcommand_cli_from_dict(_COMMANDS, args=arguments, prog="rlvr-lite", sort_subcommands=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)

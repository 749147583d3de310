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
        base: a local model directory, to see trained parameters on it.
    """
    from rlvr_lite.methods import list_methods

    print(list_methods(base))


def tasks() -> None:
    """List the tasks."""
    from rlvr_lite.tasks import list_tasks

    print(list_tasks())


def show(directory: Annotated[Path, tyro.conf.Positional], *, samples: int = 0, plot: Path | None = None) -> None:
    """Show a run or an evaluation: its outcome, some of its answers, its curves or its heat map.

    Args:
        directory: of the run or the evaluation.
        samples: how many answers to print; of a run, of its last step.
        plot: write the picture to this file.
    """
    from rlvr_lite.face import load
    from rlvr_lite.training import Run

    found = load(directory)
    print(found)
    if isinstance(found, Run):
        rows = found.rollouts()
        last = [row for row in rows if row["step"] == rows[-1]["step"]][:samples] if samples and rows else []
        for row in last:
            print(f"\n{row['id']}  answer {row['answer']}  reward {row['reward']}\n{row['completion']}")
    elif samples:
        for row in [row for benchmark in found for row in found.samples(benchmark)][:samples]:
            print(f"\n{row['id']}  {'right' if row['correct'] else 'wrong'}\n{row['completion']}")
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


def export(
    run: _Run,
    *,
    to: str = "adapter",
    out: Path | None = None,
    dtype: str | None = None,
    rank: int | None = None,
    llama_cpp: Path | None = None,
    repo: str | None = None,
    form: Literal["adapter", "lora", "merged", "gguf"] = "adapter",
    public: bool = False,
    dry_run: bool = False,
    force: bool = False,
) -> None:
    """Take a trained policy home: as an adapter, a plain LoRA, a merged model, a GGUF file, or to the Hub.

    Args:
        run: the run's directory.
        to: adapter, lora, merged, gguf or hub.
        out: directory to make; by default one in the run's folder export. Nothing is overwritten.
        dtype: of merged (bf16, fp16, fp32) or gguf (also q8_0); by default bf16 and fp16.
        rank: of lora; by default what is exact, or the method's own rank where no low one is.
        llama_cpp: folder of llama.cpp, to convert with its script instead of ours.
        repo: owner/name on the Hub; the token is read from the environment variable HF_TOKEN.
        form: what goes to the Hub.
        public: make a new repository of the Hub public.
        dry_run: show the card of what would go to the Hub, and push nothing.
        force: also take a run whose proof failed; the export says so.
    """
    from rlvr_lite.delivery import export as deliver

    deliver(
        run,
        to,  # type: ignore[arg-type]
        out,
        dtype=dtype,
        rank=rank,
        llama_cpp=llama_cpp,
        repo=repo,
        form=form,
        public=public,
        dry_run=dry_run,
        force=force,
    )


def verify_export(directory: Annotated[Path, tyro.conf.Positional]) -> None:
    """Prove that an export is the policy of its run: files unchanged, and the same answers to fixed prompts.

    Args:
        directory: of the export.
    """
    from rlvr_lite.delivery import verify_export as verify_delivery

    found = verify_delivery(directory)
    if not found.proven:
        raise UserError(str(found))
    print(found)


def chat(run: _Run, *, temperature: float = 0.0, seed: int = 0, force: bool = False) -> None:
    """Ask a policy before and after training the same questions, side by side.

    Args:
        run: the run's directory.
        temperature: of the answers; 0 takes the most likely token.
        seed: of drawn answers.
        force: also take a run whose proof failed.
    """
    from rlvr_lite.delivery import Chat

    Chat(run, temperature=temperature, seed=seed, force=force).talk()


def plan(
    base: Annotated[str, tyro.conf.Positional],
    *,
    method: str = "lora",
    gpu: str | None = None,
    precision: Precision = "auto",
    prompts_per_step: int | None = None,
    group_size: int = 8,
    max_completion_length: int | None = None,
    prompt_length: int = 256,
    micro_batch: int | None = None,
    rank: int | None = None,
    kl_coef: float = 0.0,
    gradient_checkpointing: bool | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    measure: bool = False,
    out: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Before a run is started: does it fit the card, and what would?

    Args:
        base: `tiny`, a model folder, a Hub model in the cache, or a well-known one (no network is needed).
        method: adapter method.
        gpu: a card such as "RTX 3060" or t4, or memory such as 16GiB; by default this machine's.
        precision: of the base; auto takes the card's 16-bit type.
        prompts_per_step: prompts drawn for one optimizer step.
        group_size: completions sampled for each prompt.
        max_completion_length: longest completion in tokens.
        prompt_length: longest prompt in tokens.
        micro_batch: completions a backward pass.
        rank: r of the adapter.
        kl_coef: weight of the KL term; above 0 the frozen base scores completions too.
        gradient_checkpointing: recompute activations in the backward pass.
        revision: of a Hub model.
        dry_run: run the real step on fake tensors and count every storage (seconds; no GPU, no weights).
        measure: run the real step on this machine's GPU, and write a report.
        out: where the plan, or the report, is written as JSON.
        plot: write a picture of the phases here.
    """
    from rlvr_lite.planning import plan as make_plan
    from rlvr_lite.records import write_text

    found = make_plan(
        base,
        method,
        gpu,
        prompt_length=prompt_length,
        precision=precision,
        prompts_per_step=prompts_per_step,
        group_size=group_size,
        max_completion_length=max_completion_length,
        micro_batch=micro_batch,
        rank=rank,
        kl_coef=kl_coef,
        gradient_checkpointing=gradient_checkpointing,
        revision=revision,
    )
    if measure:
        from rlvr_lite.planning.measure import measure as measure_plan

        report, target = measure_plan(found), out or Path("memory_report.json")
        report.write(target)
        print(f"{report}\nwrote {target}")
        return
    print(found)
    if dry_run:
        found = found.dry_run()
        print(f"\n{found.table}")
    if out is not None:
        write_text(out, found.to_json())
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")


_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "train": train,
    "eval": evaluate,
    "show": show,
    "plan": plan,
    "spectrum": spectrum,
    "export": export,
    "verify-export": verify_export,
    "chat": chat,
    "verify": verify,
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

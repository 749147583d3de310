"""Commands that train: one run, a tour, or a comparison."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError

__all__ = ["compare", "demo", "show", "train"]

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


def train(
    config: tyro.conf.OmitArgPrefixes[RunConfig],
    *,
    recipe: str | None = None,
    out: Path | None = None,
    quiet: bool = False,
) -> None:
    """Train one adapter, prove what was trained, and score it before and after.

    Args:
        config: the run.
        recipe: protocol that every option not given is taken from (see recipes), or a TOML file.
        out: its directory; by default one under runs/ named after what is run. Calling again continues a stopped run.
        quiet: no progress bars.
    """
    if config.backend == "unsloth":
        from rlvr_lite.bases import import_unsloth

        import_unsloth()  # before every library that it patches
    from rlvr_lite.study import for_method
    from rlvr_lite.training import train as run_training

    config = config if recipe is None else for_method(config)
    run = run_training(config.method, config.base, config.task, config=config, out=out, progress=not quiet)
    if os.environ.get("RANK", "0") == "0":  # under accelerate launch every process has the same run
        print(run)


def compare(
    methods: Annotated[str, tyro.conf.Positional],
    config: tyro.conf.OmitArgPrefixes[RunConfig],
    *,
    recipe: str | None = None,
    seeds: int = 3,
    tune: Literal["lr", "none"] = "lr",
    budget: int | None = None,
    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    reference: str | None = None,
    zone: float = 0.0,
    engine: Literal["local", "process", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    out: Path | None = None,
    quiet: bool = False,
) -> None:
    """Compare methods fairly: same budget, prompts and problems, a learning-rate search for each, several seeds.

    Args:
        methods: names separated by commas.
        config: what all runs share.
        recipe: protocol that every option not given is taken from (see recipes), or a TOML file.
        seeds: training seeds.
        tune: search each method's learning rate, or take its default.
        budget: completions a run may draw; by default all runs have equal steps.
        axis: FIELD=VALUE,VALUE makes a row for each value; may be given several times.
        reference: method that the others are compared with.
        zone: half width of the zone of practical equivalence, in accuracy.
        engine: one run after another here, in fresh processes, or on a Ray cluster.
        workers: runs at once.
        address: of a running Ray cluster.
        out: the study's directory. Calling again continues it.
        quiet: no progress bar.
    """
    from rlvr_lite.study import compare as run_study
    from rlvr_lite.study import recipe as read_recipe

    start = RunConfig() if recipe is None else read_recipe(recipe)
    for name, instead in (("method", "name the methods first"), ("seed", "use --seeds")):
        if getattr(config, name) != getattr(start, name):
            raise UserError(f"--{name} means nothing in a comparison: {instead}")
    _refuse_unused(methods, config, start)
    found = run_study(
        methods,
        config.base,
        config.task,
        seeds=seeds,
        tune=tune,
        budget=budget,
        reference=reference,
        zone=zone,
        engine=engine,
        workers=workers,
        address=address,
        out=out,
        config=config,
        progress=not quiet,
        **dict(map(_axis, axis)),
    )
    print(found)
    print(f"report: {found.directory / 'report.html'}")


def _refuse_unused(methods: str, config: RunConfig, start: RunConfig) -> None:
    """What one row has no use for goes to the others; what none has is a mistake, if it was typed."""
    from rlvr_lite.methods import get
    from rlvr_lite.study.design import make_arms

    rows = [get(arm.overrides["method"]) for arm in make_arms(methods, {})]
    for name in ("rank", "alpha", "targets"):
        if getattr(config, name) != getattr(start, name) and not any(name in row.uses for row in rows):
            raise UserError(f"none of {', '.join(row.name for row in rows)} has {name}: leave --{name} out")


def _axis(text: str) -> tuple[str, list[Any]]:
    """``rank=1,8`` as a field and its values."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise UserError(f"--axis takes FIELD=VALUE,VALUE, such as rank=1,8; got {text!r}")
    return name.strip().replace("-", "_"), [_value(value.strip()) for value in values.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def show(directory: Annotated[Path, tyro.conf.Positional], *, samples: int = 0, plot: Path | None = None) -> None:
    """Show a run, an evaluation or a study: its outcome, some of its answers, its picture.

    Args:
        directory: of the run, the evaluation or the study.
        samples: how many answers to print; of a run, of its last step.
        plot: write the picture to this file.
    """
    from rlvr_lite.evaluation import Evaluation
    from rlvr_lite.face import load
    from rlvr_lite.training import Run

    found = load(directory)
    print(found)
    if isinstance(found, Run):
        rows = found.rollouts()
        last = [row for row in rows if row["step"] == rows[-1]["step"]][:samples] if samples and rows else []
        for row in last:
            print(f"\n{row['id']}  answer {row['answer']}  reward {row['reward']}\n{row['completion']}")
    elif isinstance(found, Evaluation):
        for row in [row for benchmark in found for row in found.samples(benchmark)][:samples] if samples else []:
            print(f"\n{row['id']}  {'right' if row['correct'] else 'wrong'}\n{row['completion']}")
    elif samples:
        raise UserError(f"{directory} is a study: give one of the runs in it to see answers")
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")

"""Compare methods."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rlvr_lite.commands._consent import consent, refuse_card
from rlvr_lite.errors import UserError
from rlvr_lite.options import with_options

__all__ = ["compare"]


@with_options(leave_out=("method", "seed", "eval_before"))
def compare(
    methods: tuple[str, ...],
    *,
    base: str | None = None,
    task: str | None = None,
    recipe: str | None = None,
    seeds: int = 3,
    tune: Literal["lr", "none"] = "lr",
    budget: int | None = None,
    axis: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE,VALUE ...")] = (),
    reference: str | None = None,
    margin: float = 0.0,
    search_seeds: int = 2,
    engine: Literal["local", "process", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    out: Path | None = None,
    dry: bool = False,
    gpu: str | None = None,
    yes: bool = False,
    progress: bool = True,
    **options: Any,
) -> None:
    """Compare methods fairly: same budget, prompts and problems, a learning-rate search for each, several seeds.

    Args:
        methods: names, separated by commas or spaces.
        base: `tiny`, a Hub model id or a model folder; by default the recipe's, else tiny.
        task: a name of `rlvr-lite tasks` or the path of a file with problems; by default the recipe's, else chain-sum.
        recipe: protocol that every option not given is taken from (see recipes), or a TOML file.
        seeds: training seeds.
        tune: search each method's learning rate, or take its default.
        budget: completions a run may draw; by default all runs have equal steps.
        axis: FIELD=VALUE,VALUE makes a row for each value; several fields make a row for each combination.
        reference: method that the others are compared with.
        margin: equivalence margin, as a share of what the reference gains over the untrained base.
        search_seeds: seeds of the fine pass of the search; two or more show how much its choice owes to luck.
        engine: one run after another here, in fresh processes, or on a Ray cluster.
        workers: runs at once.
        address: of a running Ray cluster.
        out: the study's directory. Calling again continues it.
        dry: print runs, generated tokens, hours and disk, and train nothing.
        gpu: with --dry, the card that hours are given for; by default this machine's device.
        yes: start what takes more than an hour without being asked.
        progress: show a progress bar; -q shows none.
        **options: what all runs share.
    """
    from rlvr_lite.recipes import recipe as read_recipe
    from rlvr_lite.study import check_workers, estimate
    from rlvr_lite.study import compare as run_study

    refuse_card(gpu, dry)
    check_workers(engine, workers, address)
    axes: dict[str, list[Any]] = {}
    for name, values in map(_axis, axis):
        if name in axes:
            raise UserError(f"--axis has {name} twice: give all its values at once, such as {name}=1,8")
        axes[name] = values
    _refuse_unused(methods, options)
    config = None if recipe is None else read_recipe(recipe)
    asked: dict[str, Any] = {
        "seeds": seeds,
        "tune": tune,
        "budget": budget,
        "reference": reference,
        "margin": margin,
        "out": out,
    }
    asked |= {"search_seeds": search_seeds, "config": config, **options, **axes}
    left = estimate(methods, base, task, gpu=gpu, **asked)
    if dry:
        print(left)
        return
    consent(left, yes)
    running: dict[str, Any] = {"engine": engine, "workers": workers, "address": address, "progress": progress}
    found = run_study(methods, base, task, **running, **asked)
    print(found)
    print(f"report: {found.directory / 'report.html'}")


def _refuse_unused(methods: Sequence[str], options: Mapping[str, Any]) -> None:
    """What one row has no use for goes to the others; what none has is a mistake."""
    from rlvr_lite.methods import get

    rows = [get(name) for name in methods]
    for name in ("rank", "alpha", "targets"):
        if options.get(name) is not None and not any(name in row.uses for row in rows):
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

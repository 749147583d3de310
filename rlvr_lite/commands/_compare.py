"""Compare methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError

__all__ = ["compare"]


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
    from rlvr_lite.recipes import recipe as read_recipe
    from rlvr_lite.study import compare as run_study

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
    from rlvr_lite.study.design import make_variants

    rows = [get(variant.overrides["method"]) for variant in make_variants(methods, {})]
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

"""Train one adapter."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError
from rlvr_lite.options import with_options
from rlvr_lite.runs import STOPS

__all__ = ["train"]


@with_options()
def train(
    method: str | None = None,
    base: str | None = None,
    task: str | None = None,
    *,
    recipe: str | None = None,
    out: Path | None = None,
    progress: bool = True,
    wait: bool = False,
    smoke: bool = False,
    **options: Any,
) -> str:
    """Train one adapter, prove what was trained, and score it before and after.

    Args:
        method: a name of `rlvr-lite methods`; by default the recipe's, else lora.
        base: `tiny`, a Hub model id or a model folder; by default the recipe's, else tiny.
        task: a name of `rlvr-lite tasks` or the path of a file with problems; by default the recipe's, else chain-sum.
        recipe: protocol that every option not given is taken from (see recipes), or a TOML file.
        out: its directory; by default one under runs/ named after what is run. Calling again continues a stopped run.
        progress: show progress bars; -q shows none.
        wait: if another process trains in that directory, wait until it is done instead of refusing.
        smoke: try all stages on a step or so: what is not given is small, and too few steps to prove anything are no failure.
        **options: of the run.

    Returns:
        How the run ended.
    """
    from rlvr_lite.recipes import recipe as read_recipe

    config = None if recipe is None else read_recipe(recipe)
    if (options.get("backend") or (config and config.backend)) == "unsloth":
        from rlvr_lite.bases import import_unsloth

        import_unsloth()  # before every library that it patches
    from rlvr_lite import methods
    from rlvr_lite.training import train as run_training

    if base in methods.names() and not Path(base).exists():
        raise UserError(f"train takes one method, and {base} is another: rlvr-lite compare {method} {base}")
    run = run_training(method, base, task, config=config, out=out, progress=progress, wait=wait, smoke=smoke, **options)
    if os.environ.get("RANK", "0") == "0":  # under accelerate launch every process has the same run
        print(run)
    if run.status == "stopped" and run.reason in STOPS:
        sys.exit(128 + STOPS[run.reason])
    return "failed" if run.doubt and not smoke else run.status

"""Train one adapter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tyro

from rlvr_lite.config import RunConfig
from rlvr_lite.runs import STOPS

__all__ = ["train"]


def train(
    config: tyro.conf.OmitArgPrefixes[RunConfig],
    *,
    recipe: str | None = None,
    out: Path | None = None,
    quiet: bool = False,
    wait: bool = False,
) -> None:
    """Train one adapter, prove what was trained, and score it before and after.

    Args:
        config: the run.
        recipe: protocol that every option not given is taken from (see recipes), or a TOML file.
        out: its directory; by default one under runs/ named after what is run. Calling again continues a stopped run.
        quiet: no progress bars.
        wait: if another process trains in that directory, wait until it is done.
    """
    if config.backend == "unsloth":
        from rlvr_lite.bases import import_unsloth

        import_unsloth()  # before every library that it patches
    from rlvr_lite.recipes import for_method
    from rlvr_lite.training import train as run_training

    config = config if recipe is None else for_method(config)
    run = run_training(config.method, config.base, config.task, config=config, out=out, progress=not quiet, wait=wait)
    if os.environ.get("RANK", "0") == "0":  # under accelerate launch every process has the same run
        print(run)
    if run.status == "stopped" and run.reason in STOPS:
        sys.exit(128 + STOPS[run.reason])

"""The command line: one function a command, with the signature of the Python call."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError

__all__ = ["main"]

_Run = Annotated[Path, tyro.conf.Positional]


def demo(*, out: Path = Path("runs/demo"), methods: tuple[str, ...] = ("lora", "dora", "full"), steps: int = 40) -> None:
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


_COMMANDS = {"demo": demo, "train": train, "methods": methods, "tasks": tasks, "show": show}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a mistake of the user's ends in one line and exit status 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to their developers, not to the user
    try:
        tyro.extras.subcommand_cli_from_dict(_COMMANDS, args=arguments, prog="rlvr-lite", sort_subcommands=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)

"""The command line: its commands by name, and what a mistake looks like."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from rlvr_lite.commands import claiming, judging, learning, looking, taking
from rlvr_lite.errors import UserError

__all__ = ["main"]

_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": learning.demo,
    "train": learning.train,
    "eval": judging.evaluate,
    "compare": learning.compare,
    "claims": claiming.claims,
    "show": learning.show,
    "plan": looking.plan,
    "spectrum": looking.spectrum,
    "export": taking.export,
    "verify-export": taking.verify_export,
    "chat": taking.chat,
    "verify": judging.verify,
    "methods": judging.methods,
    "tasks": judging.tasks,
    "benchmarks": judging.benchmarks,
    "recipes": claiming.recipes,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a mistake of the user's ends in one line and exit status 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to their developers, not to the user
    given = sys.argv[1:] if arguments is None else arguments
    try:
        commands = claiming.with_recipe(_COMMANDS, given)
        tyro.extras.subcommand_cli_from_dict(commands, args=given, prog="rlvr-lite", sort_subcommands=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)

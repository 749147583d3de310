"""The command line: its commands by name, and what a mistake looks like."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from rlvr_lite import commands
from rlvr_lite.errors import UserError
from rlvr_lite.runs import STOPS

__all__ = ["main"]

_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": commands.demo,
    "train": commands.train,
    "eval": commands.evaluate,
    "compare": commands.compare,
    "claims": commands.claims,
    "show": commands.show,
    "plan": commands.plan,
    "spectrum": commands.spectrum,
    "export": commands.export,
    "verify-export": commands.verify_export,
    "chat": commands.chat,
    "verify": commands.verify,
    "methods": commands.methods,
    "tasks": commands.tasks,
    "benchmarks": commands.benchmarks,
    "recipes": commands.recipes,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a mistake of the user's ends in one line and exit status 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to their developers, not to the user
    given = sys.argv[1:] if arguments is None else arguments
    _listen()
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands.with_recipe(_COMMANDS, given), args=given, prog="rlvr-lite", sort_subcommands=False
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as error:
        print("stopped", file=sys.stderr)
        sys.exit(128 + STOPS.get(str(error), signal.SIGINT))


def _listen() -> None:
    """SIGTERM (of Slurm, Docker, a spot machine) and SIGHUP end a command as an interrupt does: what is done is kept."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(next(reason for reason, known in STOPS.items() if known == number))

    if threading.current_thread() is threading.main_thread():
        for number in set(STOPS.values()) - {signal.SIGINT}:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)

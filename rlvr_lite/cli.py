"""The command line: its commands by name, and what a mistake looks like."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tyro

import rlvr_lite
from rlvr_lite import commands
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.runs import STOPS

__all__ = ["main"]

_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": commands.demo,
    "doctor": commands.doctor,
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
    "bases": commands.bases,
    "benchmarks": commands.benchmarks,
    "recipes": commands.recipes,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Exit status: 0 done, 1 a run failed its proof, 2 a mistake (one line), 129, 130 or 143 stopped by a signal.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to their developers, not to the user
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["--version"], ["-V"]):
        print(f"rlvr-lite {rlvr_lite.__version__}")
        return
    _listen()
    try:
        ended = _run(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except OSError as error:  # what nobody thought of, such as a folder that is closed to this user
        if error.filename is None:
            raise
        print(f"error: {UserError(f'cannot use {error.filename}: {error.strerror}')}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        print("stopped", file=sys.stderr)
        sys.exit(128 + STOPS.get(str(error), signal.SIGINT))
    if ended == "failed":
        sys.exit(1)


def _listen() -> None:
    """SIGTERM (of Slurm, Docker, a spot machine) and SIGHUP end a command as an interrupt does: what is done is kept."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(next(reason for reason, known in STOPS.items() if known == number))

    if threading.current_thread() is threading.main_thread():
        for number in set(STOPS.values()) - {signal.SIGINT}:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)


def _run(given: list[str]) -> Any:
    """What the command returns."""
    name, words = (given[0], given[1:]) if given else ("--help", [])
    if name in _COMMANDS:
        return _command(name, words)
    if name in ("-h", "--help", "help"):
        return _command(words[0], ["--help"]) if words[:1] and words[0] in _COMMANDS else _all(["--help"])
    if name == "--print-completion":
        if words not in (["bash"], ["zsh"]):
            raise UserError("--print-completion takes the name of a shell: bash or zsh")
        return _all(["--tyro-print-completion", *words])
    if name.startswith("-"):
        raise UserError(
            f"rlvr-lite has no option {name} before a command: it has --help, --version, --print-completion"
        )
    raise unknown_name("command", name, _COMMANDS)


def _command(name: str, words: list[str]) -> Any:
    """What one command returns."""
    command = commands.for_tyro(_COMMANDS[name])
    words = commands.prepared(name, _COMMANDS[name], words)
    helps = words == ["--help"]
    try:  # what tyro finds wrong fills a box; here it is a line
        ready = tyro.cli(_later(command), args=words, prog=f"rlvr-lite {name}", console_outputs=helps)
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise UserError(
            f"{name} cannot read {' '.join(words)!r}: rlvr-lite {name} --help shows what it takes"
        ) from None
    return ready()


def _later(command: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """The command with the same signature, to be called once tyro is through with the words."""

    @functools.wraps(command)
    def take(*args: Any, **options: Any) -> Callable[[], Any]:
        return functools.partial(command, *args, **options)

    return take


def _all(words: list[str]) -> None:
    """What tyro says of all commands together: the help, or a shell's completion."""
    known = {name: commands.for_tyro(command) for name, command in _COMMANDS.items()}
    more = "Also: --version, --print-completion bash or zsh, and `rlvr-lite help COMMAND`."
    try:
        tyro.extras.subcommand_cli_from_dict(
            known, args=words, prog="rlvr-lite", description=more, sort_subcommands=False
        )
    except SystemExit as error:
        if error.code not in (0, None):
            raise

"""What makes a documented command, option or name right, without running what it names.

Every command is read by the parser that will read it: the command line's own, the benchmark's, accelerate's, pdoc's. A
command that no rule knows is an error, so that nothing is documented unchecked.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import io
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import rlvr_lite
from rlvr_lite import cli, methods, tasks
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.study import compare
from rlvr_lite.training import GRPOTrainer, train
from tests.docs.reader import REPOSITORY, Command

PROJECT: Mapping[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
_EXTRAS = PROJECT["project"]["optional-dependencies"]
_DEFAULTS = RunConfig()
_VARIABLE = "REPOSITORY"
_EXTRA = re.compile(r"^(?:\.|rlvr-lite)\[(\w+(?:,\w+)*)\]$")


class _Parsed(Exception):
    """The arguments were read; what would come next is the work itself."""


def check(command: Command) -> None:
    """Raise an ``AssertionError`` that says what is wrong with a command."""
    program, *words = command.words
    if program.startswith(f"{_VARIABLE}=") or program == "cd":
        return
    rule = _RULES.get(program)
    if rule is None:
        script = REPOSITORY / program
        known = "/" in program and script.is_file()
        assert known, f"{command}: no rule knows it; add one to tests/docs/rules.py"
        assert os.access(script, os.X_OK), f"{command}: not executable"
        return
    try:
        rule(words)
    except (AssertionError, SystemExit, UserError, argparse.ArgumentError, LookupError, ImportError) as error:
        raise AssertionError(f"{command}: {error}") from error


def check_option(span: str) -> None:
    """A span such as ``--max-hours 11``: some command, benchmark or accelerate itself knows the option."""
    name = span.split()[0].partition("=")[0]
    assert name in _options(), f"no command has the option {name}"


def check_extras(text: str) -> None:
    """Extras asked for anywhere in the text exist."""
    for found in re.findall(r"(?:rlvr-lite|\.|`)\[([\w,]+)\]", text):
        assert set(found.split(",")) <= set(_EXTRAS), f"no extra {found}"


def check_name(span: str) -> None:
    """A span that begins with ``rlvr_lite.``: the name exists, and a call's keywords fit it."""
    node: ast.AST = ast.parse(span, mode="eval").body
    keywords = []
    if isinstance(node, ast.Call):
        keywords, node = [word.arg for word in node.keywords], node.func
    found: Any = rlvr_lite
    for name in ast.unparse(node).split(".")[1:]:
        found = getattr(found, name)
    check_keywords(found, keywords)


def check_keywords(call: Callable[..., Any], keywords: Sequence[str | None]) -> None:
    """``call`` takes the keywords; where it takes any, they are fields of a run."""
    if not keywords:
        return
    known = inspect.signature(call).parameters
    for word in keywords:
        assert word in known or ("overrides" in known and hasattr(_DEFAULTS, str(word))), (
            f"{call.__name__} takes no {word}"
        )


def check_assignment(span: str) -> None:
    """A span such as ``engine="ray"``: a keyword of training, comparing or a run's configuration."""
    name = span.partition("=")[0]
    calls = (train, compare, GRPOTrainer)
    known = {name for call in calls for name in inspect.signature(call).parameters} | {*vars(_DEFAULTS)}
    assert name in known, f"nothing takes {name}="


def parse(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Words of the command line as the command they choose and the arguments it would be called with.

    Raises:
        AssertionError: the command line refuses them.
    """
    taken: list[tuple[str, dict[str, Any]]] = []

    def stub(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def take(*args: Any, **options: Any) -> None:
            taken.append((name, inspect.signature(command).bind(*args, **options).arguments))

        return take

    with patch.object(cli, "_COMMANDS", {name: stub(name, command) for name, command in cli._COMMANDS.items()}):
        try:
            cli.main(words)
        except SystemExit as error:
            raise AssertionError("the command line refuses it") from error
    return taken[0]


def _rlvr_lite(words: Sequence[str]) -> None:
    if words[0].startswith("-"):
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(words)
        return
    _, arguments = parse(words)
    named = {name: value for name, value in arguments.items() if value is not None}
    asked = named.get("methods", named.get("method", _DEFAULTS.method))
    for name in asked.replace(",", " ").split() if isinstance(asked, str) else asked:
        methods.get(name)
    task = named.get("task", _DEFAULTS.task)
    stored = {row["task"] for row in tasks.list_tasks().rows if row["from"] != "generated"}
    if not task.endswith(".jsonl") and task not in stored:  # those need files or the network
        tasks.get(task, **named.get("task_options", {}))


def _python(words: Sequence[str]) -> None:
    assert words[0] == "-m", "only modules are run by name"
    name, arguments = words[1], words[2:]
    if name == "venv":
        return
    assert name.startswith("tests."), f"no rule knows the module {name}"
    module = importlib.import_module(name)
    source = inspect.getsource(module)
    assert '__name__ == "__main__"' in source, f"{name} does nothing when it is run"
    if "parse_args()" in source:
        _read_arguments(module, arguments)
    elif "sys.argv" not in source:
        assert not arguments, f"{name} takes no arguments"


def _read_arguments(module: Any, arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a benchmark, after it has taken the arguments and before it measures."""
    own, met = argparse.ArgumentParser.parse_args, []

    def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
        met.append(parser)
        parser.allow_abbrev = False  # a document shows whole words
        own(parser, list(arguments))
        raise _Parsed

    with patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            module.main()
        except _Parsed:
            return met[0]
        except SystemExit as error:
            raise AssertionError(f"{module.__name__} refuses its arguments") from error
    raise AssertionError(f"{module.__name__}.main reads no arguments")


def _accelerate(words: Sequence[str]) -> None:
    assert words[0] == "launch"
    given = _launcher().parse_args(list(words[1:]))
    assert given.module
    assert given.training_script == "rlvr_lite"
    _rlvr_lite([word for word in given.training_script_args if word != "..."])


def _launcher() -> argparse.ArgumentParser:
    from accelerate.commands.launch import launch_command_parser

    return launch_command_parser()


def _pip(words: Sequence[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        word = word.removesuffix(f" @ git+${_VARIABLE}")
        if word in ("-e", ".", "rlvr-lite", "torch"):
            continue
        found = _EXTRA.match(word)
        assert found, f"no rule knows the requirement {word}"
        assert set(found[1].split(",")) <= set(_EXTRAS), f"no extra {found[1]}"


def _git(words: Sequence[str]) -> None:
    assert words[:2] == ["clone", f"${_VARIABLE}"], "only the repository itself is cloned, from where it is named"


def _jupyter(words: Sequence[str]) -> None:
    assert words[0] == "lab"
    assert "jupyterlab" in _EXTRAS["notebook"]
    _exist(words[1:])


def _pytest(words: Sequence[str]) -> None:
    options = argparse.ArgumentParser(prog="pytest", exit_on_error=False)
    options.add_argument("-m")
    options.add_argument("-k")
    options.add_argument("-n", type=int)
    options.add_argument("-q", action="store_true")
    options.add_argument("paths", nargs="*")
    given = options.parse_args(list(words))
    known = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    used = set(re.findall(r"\w+", given.m or "")) - {"and", "or", "not"}
    assert used <= known, f"no marker {used - known}"
    _exist(given.paths)


def _tool(program: str) -> Callable[[Sequence[str]], None]:
    """A tool of the extra ``dev``; what it is given besides its own words are paths."""

    def rule(words: Sequence[str]) -> None:
        assert program in _EXTRAS["dev"], f"{program} is not among the tools of the extra dev"
        _exist([word for word in words if word not in ("check", "format", "--check")])

    return rule


def _pdoc(words: Sequence[str]) -> None:
    assert any(requirement.startswith("pdoc") for requirement in _EXTRAS["docs"])
    if importlib.util.find_spec("pdoc"):
        from pdoc.__main__ import parser

        _exist(module.replace(".", "/") for module in parser.parse_args(list(words)).modules)


def _exist(paths: Any) -> None:
    for path in paths:
        assert (REPOSITORY / path).exists(), f"there is no {path}"


@functools.cache
def _options() -> frozenset[str]:
    """Options of the command line, of every benchmark that has some, and of accelerate."""
    names = set(vars(_DEFAULTS))
    for command in cli._COMMANDS.values():
        names |= set(inspect.signature(command).parameters)
    found = {f"--{name.replace('_', '-')}" for name in names}
    for path in sorted((REPOSITORY / "tests" / "benchmarks").glob("*.py")):
        found |= set(re.findall(r'add_argument\("(--[\w-]+)"', path.read_text(encoding="utf-8")))
    return frozenset(found | set(_launcher()._option_string_actions))


_RULES: Mapping[str, Callable[[Sequence[str]], None]] = {
    "accelerate": _accelerate,
    "git": _git,
    "jupyter": _jupyter,
    "mypy": _tool("mypy"),
    "pdoc": _pdoc,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    "rlvr-lite": _rlvr_lite,
    "ruff": _tool("ruff"),
}
PROGRAMS = frozenset(_RULES)

"""What the README tells its reader to type is typed, in its order and one folder, at a scale of seconds."""

from __future__ import annotations

import builtins
import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import rlvr_lite
from rlvr_lite.cli import main
from tests.docs.reader import REPOSITORY, blocks, commands, section, spans

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DATA = Path(os.environ.get("RLVR_LITE_DATA", REPOSITORY.parent / "shared" / "data"))

_STEPS = ["--steps", "4", "--prompts-per-step", "4", "--group-size", "4"]
_SCORE = ["--max-completion-length", "24", "--eval-problems", "2", "--eval-k", "1", "--quiet"]
#: The words that shorten a command of the command line; ``None`` where they cannot: it is read, not run.
SHORTER: Mapping[str, list[str] | None] = {
    "demo": ["--methods", "lora", "--steps", "2"],
    "train": [*_STEPS, *_SCORE],
    "show": [],
    "eval": ["--k", "1", "--quiet"],
    "eval --power": [],
    "compare": ["--tune", "none", *_STEPS, *_SCORE],
    "claims": None,
    "recipes": [],
    "plan": [],
    "spectrum": [],
    "export": [],
    "verify-export": [],
    "chat": [],
    "verify": [],
    "doctor": ["versions", "disk"],
    "methods": [],
    "--print-completion": [],
}
#: Keywords that shorten the calls of a Python block; those that the README gives itself win.
_SMALL = {"prompts_per_step": 4, "group_size": 4, "max_completion_length": 24, "eval_problems": 2, "eval_k": 1}
CALLS: Mapping[str, Mapping[str, Any]] = {
    # all of its steps, because the README asks for the rollouts of the last one
    "train": _SMALL,
    "compare": _SMALL | {"steps": 4, "tune": "none"},
}


def _take(words: Sequence[str]) -> None:
    name, *rest = words
    shorter = SHORTER[f"{name} --power" if "--power" in rest else name]
    # A model of the Hub needs the network, and so does a stored task without its file.
    away = any("/" in base for base in _after(rest, "--base")) or (
        not DATA.is_dir() and "gsm8k" in _after(rest, "--task")
    )
    if shorter is not None and not away:
        main([name, *rest, *shorter])


def _after(words: list[str], option: str) -> list[str]:
    return [after for word, after in itertools.pairwise(words) if word == option]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if DATA.is_dir():
        monkeypatch.setenv("RLVR_LITE_DATA", str(DATA))
    questions = iter(["1+2=?", "exit"])
    monkeypatch.setattr(builtins, "input", lambda _: next(questions))
    for name, small in CALLS.items():
        monkeypatch.setattr(rlvr_lite, name, functools.partial(getattr(rlvr_lite, name), **small))
    names: dict[str, Any] = {}
    for block in blocks(README):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, "README.md", "exec"), names)
            continue
        for command in commands(block):
            if command.words[0] != "rlvr-lite":  # pip and pytest, which CI runs as they stand
                continue
            try:
                _take(command.words[1:])
            except (SystemExit, Exception) as error:
                raise AssertionError(f"{command}: {error}\n{capsys.readouterr().err}") from error
    for span, line in spans(section(README, "Output files")):
        if "." in span or span.endswith("/"):
            assert (tmp_path / "runs" / "dora" / span).exists(), f"a run leaves no {span} (line {line} of its section)"
    assert names["run"].status == "done"
    assert names["run"].rollouts(step=names["run"].config.steps)


def test_every_command_of_the_readme_has_a_short_form():
    found = [command for block in blocks(README) if block.language == "bash" for command in commands(block)]
    used = {command.words[1] for command in found if command.words[0] == "rlvr-lite"}
    assert used <= set(SHORTER), f"say in SHORTER how to run {used - set(SHORTER)} in seconds"

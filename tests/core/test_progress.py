"""Progress is a bar where somebody watches, and whole lines where what is written stays."""

from __future__ import annotations

import io
import sys

import pytest

from rlvr_lite import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _count(steps: int, **options) -> None:
    with progress.bar(desc="dora", unit="step", total=steps, **options) as bar:
        for number in range(steps):
            bar.n = number + 1
            bar.set_postfix({"reward": f"0.{number}"})


def test_in_a_file_there_are_few_whole_lines(capsys):
    _count(1000)
    lines = capsys.readouterr().err
    assert "\r" not in lines
    first, last = lines.splitlines()
    assert first.startswith("dora: 1/1000 [")
    assert last.startswith("dora: 1000/1000 [")
    assert last.endswith("reward=0.999]")


def test_a_line_is_said_again_after_a_while(capsys, monkeypatch):
    clock = iter(range(0, 100_000, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    _count(50)
    assert 5 < len(capsys.readouterr().err.splitlines()) < 50


def test_nothing_is_said_twice_or_of_nothing(capsys):
    with progress.bar(desc="study", unit="run") as bar:
        bar.refresh()
    assert capsys.readouterr().err == ""
    with progress.bar(desc="study", unit="run") as bar:
        bar.update(3)
    assert capsys.readouterr().err.splitlines() == ["study: 3 [00:00]"]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_not_to_be_shown_is_not(monkeypatch, terminal):
    out = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    _count(3, shown=False)
    assert out.getvalue() == ""


def test_a_terminal_has_a_bar(monkeypatch):
    out = _Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    _count(3)
    assert "\r" in out.getvalue()
    assert "3/3" in out.getvalue()

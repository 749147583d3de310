"""What takes more than an hour is not started by the command line unless that was wanted; the Python call only says it."""

from __future__ import annotations

import pytest

from rlvr_lite.cli import main
from rlvr_lite.recipes import list_recipes
from rlvr_lite.study import Study

LONG = ["compare", "lora", "dora", "--steps", "100000"]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Whether a comparison was started, in place of it."""
    calls = []

    def compare(*args, **options):
        calls.append(options)
        return Study(tmp_path, None)  # type: ignore[arg-type]

    monkeypatch.setattr("rlvr_lite.study.compare", compare)
    monkeypatch.setattr(Study, "__str__", lambda self: "done")
    monkeypatch.chdir(tmp_path)
    return calls


def refused(*words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2


def test_without_a_terminal_one_line_names_yes(started, capsys, tmp_path):
    refused(*LONG)
    said = capsys.readouterr().err
    assert "--yes" in said
    assert "hours" in said
    assert len(said.strip().splitlines()) == 1
    assert not started
    assert not any(tmp_path.iterdir())
    main([*LONG, "--yes"])
    main(["compare", "lora", "--steps", "2", "--tune", "none"])  # minutes
    assert len(started) == 2


@pytest.mark.parametrize(("answer", "count"), [("y", 1), ("", 0), ("n", 0)])
def test_on_a_terminal_it_asks(started, monkeypatch, answer, count):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    if count:
        main(LONG)
    else:
        refused(*LONG)
    assert len(started) == count


def test_a_dry_call_starts_nothing_and_names_the_card(started, capsys, tmp_path):
    main([*LONG, "--dry", "--gpu", "h100"])
    said = capsys.readouterr().out
    assert "H100" in said
    assert "learning-rate search" in said
    main(["claims", "--scale", "paper", "--dry", "--gpu", "a100 80gb"])
    assert "A100 80GB" in capsys.readouterr().out
    assert not started
    assert not any(tmp_path.iterdir())
    refused("compare", "lora", "--gpu", "h100")
    refused("claims", "--only", "rslora", "--gpu", "h100")


def test_recipes_say_what_a_run_takes(capsys):
    main(["recipes", "paper-1.5b", "--gpu", "h100"])
    assert "of H100" in capsys.readouterr().out
    main(["recipes"])
    shown = capsys.readouterr().out
    assert all(shown.count(row["recipe"]) >= 2 for row in list_recipes())  # in the list, and in what each takes

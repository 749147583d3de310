"""The command line says what the Python call says, and a mistake is one line and status 2."""

from __future__ import annotations

import json

import pytest

from rlvr_lite.cli import main

SMALL = [
    "--steps",
    "3",
    "--prompts-per-step",
    "4",
    "--group-size",
    "4",
    "--eval-problems",
    "2",
    "--eval-k",
    "1",
    "--quiet",
]


def _error(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["train", "--method", "lorra"], "lora"),
        (["train", "--base", "tinyy"], "tiny"),
        (["train", "--task", "chainsum"], "chain-sum"),
        (["train", "--group-size", "1"], "at least 2"),
        (["train", "--rank", "0"], "rank"),
        (["train", "--method", "full", "--precision", "nf4"], "4-bit"),
        (["train", "--task", "none.jsonl"], "none.jsonl"),
        (["show", "nowhere"], "nowhere"),
        (["eval", "nowhere", "--benchmarks", "chain-sum:test", "--quiet"], "nowhere"),
        (["eval"], "--power"),
        (["eval", "tiny", "--power"], "leave tiny out"),
        (["eval", "tiny", "--benchmarks", "chain-sum:test", "--k", "4", "--temperature", "0"], "temperature"),
        (["eval", "--power", "--benchmarks", "amie24"], "aime24"),
        (["eval", "--power", "--k", "0"], "k must be"),
        (["demo", "--methods", "lorra"], "lora"),
        (["compare", "lora,lorra"], "lora"),
        (["compare", "lora", "--axis", "rank"], "FIELD=VALUE"),
        (["compare", "lora", "--axis", "rnak=1,2"], "rank"),
        (["compare", "lora", "--method", "dora"], "name the methods first"),
        (["compare", "lora", "--seed", "3"], "--seeds"),
        (["compare", "lora", "--reference", "dora"], "lora"),
        (["compare", "lora", "--seeds", "0"], "seeds"),
        (["compare", "ln_tuning,ia3", "--rank", "8"], "leave --rank out"),
        (["verify", "3"], "answer"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_that_names_the_fix(capsys, tmp_path, monkeypatch, arguments, advice):
    monkeypatch.chdir(tmp_path)
    error = _error(capsys, *arguments)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert advice in error
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("arguments", [["train", "--lossy", "dapo"], ["train", "--steps", "x"], ["trian"], []])
def test_what_the_command_line_does_not_know_is_refused(capsys, arguments):
    assert _error(capsys, *arguments)


def test_train_show_and_eval(capsys, tmp_path):
    out = str(tmp_path / "run")
    main(["train", "--method", "lora", "--rank", "4", "--out", out, *SMALL])
    assert "lora on chain-sum (tiny), seed 0: done" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["rank"], config["steps"]) == (4, 3)
    main(["show", out, "--samples", "1", "--plot", str(tmp_path / "curves.png")])
    shown = capsys.readouterr().out
    assert "greedy" in shown
    assert "answer" in shown
    assert (tmp_path / "curves.png").exists()
    main(["eval", out, "--n", "2", "--k", "1", "--benchmarks", "chain-sum:ood", "--quiet"])
    assert "chain-sum:ood" in capsys.readouterr().out
    main(["verify", "--audit", out])


@pytest.mark.parametrize("command", ["methods", "tasks", "benchmarks", "eval --power"])
def test_lists(capsys, command):
    main(command.split())
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_power_is_told_of_the_benchmarks_asked(capsys):
    main(["eval", "--power", "--benchmarks", "aime24,math500", "--k", "8", "--comparisons", "13"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:-1]] == ["aime24", "math500"]
    assert "13 comparisons" in lines[-1]
    main(["eval", "--power", "--benchmark", "chain-sum:test", "--n", "100"])
    assert "100" in capsys.readouterr().out


def test_an_evaluation_is_shown_from_its_directory(capsys, tmp_path):
    out = str(tmp_path / "scores")
    (tmp_path / "mine.jsonl").write_text('{"problem": "1+2=?", "answer": "3"}\n{"problem": "2+5=?", "answer": "7"}\n')
    main(["eval", "tiny", "--benchmark", f"mine={tmp_path / 'mine.jsonl'}", "--k", "2", "--out", out, "--quiet"])
    told = capsys.readouterr().out
    assert "mine" in told
    main(["show", out, "--samples", "3", "--plot", str(tmp_path / "map.png")])
    shown = capsys.readouterr().out
    assert shown.startswith(told)
    assert shown.count("right") + shown.count("wrong") >= 3
    assert (tmp_path / "map.png").stat().st_size > 5_000


def test_verify_explains(capsys):
    main(["verify", "1/2", "\\boxed{0.5}"])
    assert "correct" in capsys.readouterr().out


def test_demo_writes_a_page_that_needs_no_network(capsys, tmp_path):
    main(["demo", "--out", str(tmp_path), "--methods", "lora", "--steps", "3"])
    text = capsys.readouterr().out
    assert "What to try next" in text
    page = (tmp_path / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert "http://" not in page
    assert "https://" not in page
    assert (tmp_path / "reward_curves.png").stat().st_size > 10_000

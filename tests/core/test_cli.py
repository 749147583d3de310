"""The command line says what the Python call says, and a mistake is one line and status 2."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import typing

import pytest

import rlvr_lite
from rlvr_lite import cli, commands
from rlvr_lite.cli import main
from rlvr_lite.config import RunConfig
from rlvr_lite.options import RunOptions, meanings

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
        (["compare", "lora", "--method", "dora"], "--methods"),
        (["compare", "lora", "--seed", "3"], "--seeds"),
        (["compare", "lora", "--reference", "dora"], "lora"),
        (["compare", "lora", "--seeds", "0"], "needs seeds: give at least one"),
        (["compare", "ln_tuning,ia3", "--rank", "8"], "leave --rank out"),
        (["verify", "3"], "answer"),
        (["train", "--lr", "1e-3"], "--learning-rate"),
        (["train", "--lrr", "1e-3"], "--learning-rate"),
        (["train", "--max-new-tokens", "64"], "--max-completion-length"),
        (["train", "--load-in-4bit"], "--precision nf4"),
        (["train", "--dose", "2"], "--help"),
        (["show", "--sample", "2", "nowhere"], "--samples"),
        (["methods", "--rank", "2"], "--help"),
        (["train", "-x"], "-x"),
        (["show"], "DIRECTORY"),
        (["show", "one", "two"], "two"),
        (["spectrum"], "RUNS"),
        (["export"], "RUN"),
        (["compare"], "METHODS"),
        (["tasks", "all"], "all"),
        (["verify", "1", "2", "3"], "3"),
        (["--lr"], "--help"),
        (["--print-completion", "fish"], "zsh"),
        (["train", "--rnak", "3"], "--rank"),
        (["train", "lora", "dora"], "rlvr-lite compare lora dora"),
        (["plan", "tiny", "lora", "--group-size", "1000000000"], "at most 65,536"),
        (["train", "--steps", "x"], "whole number"),
        (["train", "--steps"], "needs a value"),
        (["train", "--steps", "2.5"], "whole number"),
        (["train", "--eval-before=maybe"], "True or False"),
        (["train", "--precision", "int8"], "precision"),
        (["train", "--task-options", "operands"], "operands=4"),
        (["train", "lora", "tiny", "chain-sum", "more"], "more"),
        (["trian"], "train"),
        (["plan", "tiny", "lora", "P9000"], "16GiB"),
        (["plan", "tiny", "lora", "nope"], "such as T4"),
        (["plan", "tiny", "lora", "t4", "more"], "takes no word 'more' there; "),
        (["plan", "runs/nope", "lora"], "no such folder"),
        (["eval", "runs/nope"], "no such folder"),
        (["eval", "a/b/c"], "no such folder"),
        (["eval", "gpt5"], "unknown base"),
        (["train", "--base", "runs/nope"], "no such folder"),
        (["train", "--base", "my run/x y"], "no such folder"),
        (["train", "--base", "tiny/"], "no such folder"),
        (["train", "--base", ""], "--base is empty"),
        (["train", "--out="], "--out is empty"),
        (["train", "--task", "./nope"], "no file"),
        (["train", "--task", "nope"], "gsm8k, hmmt25"),
        (["train", "--seed", "99999999999999999999"], "2**32"),
        (["train", "--bf16"], "--precision bf16"),
        (["train", "--use_vllm", "True"], "--sampler vllm"),
        (["train", "--lora_dropout", "0.1"], "dropout"),
        (["train", "--gradient_accumulation_steps", "4"], "nearest is --micro-batch"),
        (["train", "--lr_scheduler_type", "cosine"], "constant"),
        (["train", "--resume"], "goes on"),
        (["train", "--no-smoke=1"], "no value"),
        (["train", "--method-options", "ratio"], "dropout=0.1"),
        (["eval", "--model", "tiny"], "--policy"),
        (["eval", "--policy", "runs/nope"], "no such folder"),
        (["show", "--run", "one"], "--directory"),
        (["show", "--directory", "nowhere"], "nowhere"),
        (["show", ""], "empty"),
        (["doctor", "--only", "nope"], "unknown check"),
        (["demo", "--methods", "lora", "lorra"], "lora"),
        (["compare", "lora", "--axis", "rank=1", "rank=2"], "twice"),
        (["compare", "lora", "--axis", "lr=1,2"], "learning_rate"),
        (["compare", "lora", "dora", "--dry", "--workers", "0"], "at least 1"),
        (["compare", "lora", "dora", "--dry", "--address", "auto"], "'ray'"),
        (["claims", "--dry", "--engine", "local", "--workers", "2"], "'process'"),
        (["recipes", "paper-1.5b", "--gpu", "nope"], "unknown card"),
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


@pytest.mark.parametrize("arguments", [["train", "--lossy", "dapo"], ["train", "--steps", "x"], ["trian"], ["--lr"]])
def test_what_the_command_line_does_not_know_is_refused(capsys, arguments):
    assert _error(capsys, *arguments)


@pytest.fixture
def called(monkeypatch):
    """What a command would call, in place of the call."""
    found = {}

    def note(*args, **options):
        found.update({"args": args, **{k: v for k, v in options.items() if v is not None}})
        raise KeyboardInterrupt

    for home in ("training.train", "study.compare", "planning.plan"):
        monkeypatch.setattr(f"rlvr_lite.{home}", note)
    return found


@pytest.mark.parametrize(
    ("typed", "args", "options"),
    [
        ("train lora tiny chain-sum", ("lora", "tiny", "chain-sum"), {}),
        ("train --steps 3 dora", ("dora", None, None), {"steps": 3}),
        ("train --method dora --no-eval-before", ("dora", None, None), {"eval_before": False}),
        ("train --eval-before false", (None, None, None), {"eval_before": False}),
        ("train --stop-on-collapse --seed 0", (None, None, None), {"stop_on_collapse": True, "seed": 0}),
        ("train --targets q_proj,v_proj -q", (None, None, None), {"targets": ("q_proj", "v_proj"), "progress": False}),
        ("train --targets q_proj v_proj", (None, None, None), {"targets": ("q_proj", "v_proj")}),
        ("train --reward-weights 1,-0.5", (None, None, None), {"reward_weights": (1.0, -0.5)}),
        ("train --task-options operands=4,5 hi=3", (None,) * 3, {"task_options": {"operands": "4,5", "hi": 3}}),
        ("train --task-options operands 4", (None,) * 3, {"task_options": {"operands": 4}}),
        ("train --learning_rate=1e-4", (None,) * 3, {"learning_rate": 1e-4}),
        ("compare lora,dora --base tiny", (("lora", "dora"), "tiny", None), {}),
        ("compare lora dora --seeds 2", (("lora", "dora"), None, None), {"seeds": 2}),
        ("compare --seeds 2 --methods lora dora", (("lora", "dora"), None, None), {"seeds": 2}),
        (
            "compare lora --axis rank=1,8 group_size=4,8",
            (("lora",), None, None),
            {"rank": [1, 8], "group_size": [4, 8]},
        ),
        ("plan tiny dora t4 --task chain-sum", ("tiny", "dora", "t4"), {"task": "chain-sum"}),
        ("plan tiny --gpu t4", ("tiny", None, "t4"), {}),
    ],
)
def test_the_command_line_calls_the_function_with_what_was_typed(called, typed, args, options):
    with pytest.raises(SystemExit) as left:
        main(typed.split())
    assert left.value.code == 130
    assert called["args"] == args
    assert {name: called[name] for name in options} == options
    fields = {f.name for f in dataclasses.fields(RunConfig)} - set(options)
    assert not fields & set(called)  # what was not typed is not named


LEFT_OUT = {"train": set(), "plan": set(), "compare": {"method", "seed", "eval_before"}}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_signature_configuration_and_command_line_have_the_same_options(name, capsys):
    function, command = getattr(rlvr_lite, name), getattr(commands, name)
    python, shell = inspect.signature(function).parameters, inspect.signature(command).parameters
    fields = {f.name for f in dataclasses.fields(RunConfig)} - LEFT_OUT[name]
    assert fields <= set(python)
    assert fields <= set(shell)
    assert set(python) - set(shell) == {"config"}  # a recipe's name stands for it
    assert set(shell) - set(python) == {"recipe"} | ({"axis", "dry", "gpu", "yes"} if name == "compare" else set()) | (
        {"dry_run", "measure", "out", "plot"} if name == "plan" else set()
    )
    words = [n for n, p in shell.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert words == list(python)[: len(words)]
    for field in fields:
        assert python[field].default is None
        assert shell[field].default is None
        assert f"    {field}: " in function.__doc__
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert not [field for field in shell if f"--{field.replace('_', '-')}" not in shown]


def test_editors_are_told_the_types_of_the_configuration():
    told, true = typing.get_type_hints(RunOptions), typing.get_type_hints(RunConfig)
    assert set(told) == set(true) - {"method", "base", "task"}
    assert {name: hint for name, hint in told.items() if name != "rewards"} == {
        name: true[name] | None for name in told if name != "rewards"
    }
    assert all(meanings()[name] for name in true)


def test_help_and_version_are_no_mistake(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"rlvr-lite {rlvr_lite.__version__}\n"
    main([])
    shown = capsys.readouterr().out
    assert "train" in shown
    assert "--version" in shown
    with pytest.raises(SystemExit) as left:
        main(["tasks", "--help"])
    assert left.value.code == 0
    assert "List the tasks" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    assert "AdapterConfig" not in capsys.readouterr().out  # an option that only shares its name with a property


def test_help_of_a_command_is_shown_before_or_behind_its_name(capsys):
    shown = []
    for words in (["help", "tasks"], ["tasks", "--help"]):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_printed_for_a_shell(capsys, shell):
    main(["--print-completion", shell])
    printed = capsys.readouterr().out
    assert "verify-export" in printed
    assert "--learning-rate" in printed


@pytest.mark.parametrize(("ended", "code"), [("failed", 1), ("done", 0), (None, 0)])
def test_the_exit_status_says_how_a_run_ended(monkeypatch, ended, code):
    monkeypatch.setitem(cli._COMMANDS, "tasks", lambda: ended)

    def call():
        main(["tasks"])
        sys.exit(0)

    with pytest.raises(SystemExit) as left:
        call()
    assert left.value.code == code


def test_a_trial_of_one_step_is_done_and_says_that_nothing_is_proven(capsys, tmp_path):
    out = str(tmp_path / "run")
    assert main(["train", "--smoke", "-q", "--out", out]) is None
    said = capsys.readouterr().out
    assert "seed 0: done" in said
    assert said.count("too few steps") == 1
    with pytest.raises(SystemExit) as left:  # the same run, asked for as a real one
        main(
            [
                "train",
                "-q",
                "--out",
                out,
                *["--steps", "1", "--prompts-per-step", "2", "--eval-problems", "4", "--eval-k", "2"],
                "--group-size",
                "4",
            ]
        )
    assert left.value.code == 1
    assert "not proven" in _error(capsys, "export", out)
    with pytest.raises(SystemExit) as left:
        main(["train", "-q", "--out", str(tmp_path / "real"), *SMALL, "--steps", "1"])
    assert left.value.code == 1
    said = capsys.readouterr().out
    assert "seed 0: failed" in said
    assert said.count("too few steps") == 1


def test_answers_shown_are_different_ones_and_the_gold_is_called_so(capsys, tmp_path):
    out = str(tmp_path / "run")
    main(["train", "--smoke", "-q", "--out", out])
    capsys.readouterr()
    rows = rlvr_lite.load(out).rollouts()
    for count in (2, 100):
        main(["show", out, "--samples", str(count)])
        shown = [part.splitlines() for part in capsys.readouterr().out.split("\nchain-sum:")[1:]]
        assert len({head.split()[0] for head, *_ in shown}) == 2  # both problems
        answers = {(head.split()[0], tuple(text)) for head, *text in shown}
        assert len(shown) == len(answers) == min(count, len({(r["id"], r["completion"]) for r in rows}))
        assert all("gold answer" in head for head, *_ in shown)


def test_a_run_that_is_not_there_is_looked_for_among_its_neighbours(capsys, tmp_path):
    out = tmp_path / "runs" / "one"
    main(["train", "--smoke", "-q", "--out", str(out)])
    assert "does not exist: the runs in" in (said := _error(capsys, "eval", str(out.with_name("two")), "-q"))
    assert "one" in said
    for wrong, advice in ((tmp_path, "runs/one"), (out / "eval", f"give {out}"), (out / "config.json", "is a file")):
        for command in ("show", "eval", "export", "chat", "spectrum"):
            assert advice in _error(capsys, command, str(wrong))
    assert "at least 0" in _error(capsys, "show", str(out), "--samples", "-1")
    assert "format" in _error(capsys, "show", str(out), "--plot", str(tmp_path / "noext"))
    frame = rlvr_lite.load(out).to_pandas()
    assert len(frame) == 1
    assert {kind.kind for kind in frame.dtypes} <= set("if")
    assert frame["reward"][0] == rlvr_lite.load(out).metrics()[0]["reward"]


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
    shown = capsys.readouterr().out
    assert re.findall(r"^(aime24|math500) ", shown, re.MULTILINE) == ["aime24", "math500"]
    assert "13 comparisons" in " ".join(shown.split())
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
    assert shown.count("mine-0000") == 2  # as many as differ
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

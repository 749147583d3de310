"""What needs several rooms: opening directories, and the spectrum of runs side by side."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import rlvr_lite
from rlvr_lite import records
from rlvr_lite.analysis.spectrum import Spectrum
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.runs import RunDirectory, finish

SMALL = {
    "steps": 3,
    "prompts_per_step": 4,
    "group_size": 4,
    "eval_problems": 0,
    "max_completion_length": 24,
    "progress": False,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: rlvr_lite.train(name, out=folder / name, **SMALL) for name in ("lora", "full")}


def test_runs_are_set_side_by_side(runs, tmp_path):
    found = rlvr_lite.spectrum([runs["lora"], runs["full"].directory], cache=tmp_path)
    assert {row["run"] for row in found.table()} == {"lora", "full"} or len(found.table()) == 2
    assert Spectrum.from_dict(found.to_dict()).to_dict() == found.to_dict()
    assert any(tmp_path.iterdir())


def test_one_run_is_enough(runs):
    assert "lora" in rlvr_lite.spectrum(runs["lora"]).words()[0]


def test_no_run_is_lost_among_others_of_its_method(runs, tmp_path):
    twins = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    for twin in twins:
        shutil.copytree(runs["lora"].directory, twin)
    found = rlvr_lite.spectrum([runs["lora"], twins[2]])
    assert [run.label for run in found.runs] == ["lora (lora)", "lora (c)"]
    assert [run.label for run in rlvr_lite.spectrum(twins).runs] == [str(twin) for twin in twins]
    with pytest.raises(UserError, match="twice"):
        rlvr_lite.spectrum([twins[0], twins[0]])


def test_an_evaluation_is_opened_from_its_directory(tmp_path):
    options = {"n": 3, "k": 2, "max_completion_length": 8, "progress": False}
    found = rlvr_lite.evaluate("tiny", "chain-sum:test", out=tmp_path / "scores", **options)
    opened = rlvr_lite.load(tmp_path / "scores")
    assert isinstance(opened, rlvr_lite.Evaluation)
    assert opened.to_dict() == found.to_dict()


def test_an_evaluation_of_a_run_stays_beside_it(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["lora"].directory, run)
    found = rlvr_lite.evaluate(run, "chain-sum:test", n=3, k=2, max_completion_length=8, progress=False)
    assert isinstance(rlvr_lite.load(run), rlvr_lite.Run)
    assert rlvr_lite.load(run / "eval").to_dict() == found.to_dict()
    found.save(run)  # a run keeps being one
    assert isinstance(rlvr_lite.load(run), rlvr_lite.Run)
    with pytest.raises(UserError, match="not a run"):
        rlvr_lite.spectrum(run / "eval")


def test_runs_on_different_bases_are_not_compared(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs["lora"].directory, other)
    facts = records.read_json(other / "adapter" / "rlvr_lite.json")
    facts["base"]["hash"] = "0" * 64
    with records.atomic_directory(other / "adapter") as folder:
        shutil.copytree(other / "adapter", folder, dirs_exist_ok=True)
        (folder / records.MANIFEST).unlink()
        records.write_json(folder / "rlvr_lite.json", facts)
    finish(RunDirectory(other), runs["lora"].summary)
    with pytest.raises(UserError, match="another base"):
        rlvr_lite.spectrum([runs["lora"], other])


def test_a_run_without_an_adapter_is_refused(runs, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(runs["lora"].directory, bare)
    shutil.rmtree(bare / "adapter")
    with pytest.raises(UserError, match="no adapter"):
        rlvr_lite.spectrum(bare)


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_what_is_no_run_is_refused(tmp_path, name):
    with pytest.raises(UserError):
        rlvr_lite.load(tmp_path / name)


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda out: rlvr_lite.train(lr=1e-4), "it is learning_rate here"),
        (lambda out: rlvr_lite.train(out=3), "out must be the path"),
        (lambda out: rlvr_lite.train(out="a\0b"), "out must be the path"),
        (lambda out: rlvr_lite.train(wait="no"), "wait must be True or False"),
        (lambda out: rlvr_lite.train(rewards=3), "rewards must be"),
        (lambda out: rlvr_lite.load(None), "directory must be the path"),
        (lambda out: rlvr_lite.load(""), "directory must be the path"),
        (lambda out: rlvr_lite.evaluate(3), "must be the path"),
        (lambda out: rlvr_lite.evaluate(["one", "two"]), "must be the path"),
        (lambda out: rlvr_lite.evaluate(("one", "two")), "must be the path"),
        (lambda out: rlvr_lite.evaluate("tiny", 3), "benchmarks must be"),
        (lambda out: rlvr_lite.evaluate("tiny", "chain-sum:ood", "8"), "k must be a whole number"),
        (lambda out: rlvr_lite.evaluate("tiny", "chain-sum:ood", n=2.5), "n must be a whole number"),
        (lambda out: rlvr_lite.evaluate("tiny", "chain-sum:ood", seed="x"), "seed must be a whole number"),
        (lambda out: rlvr_lite.evaluate("tiny", "chain-sum:ood", engine=None), "unknown engine"),
        (lambda out: rlvr_lite.evaluate("tiny", "chain-sum:ood", sampling={}), "SamplingConfig"),
        (lambda out: rlvr_lite.compare(None), "methods must be"),
        (lambda out: rlvr_lite.compare(["lora", 3]), "a row must be"),
        (lambda out: rlvr_lite.compare({"mine": {"rank": 3}}), "names no method"),
        (lambda out: rlvr_lite.compare(["lora"], seeds="3", out=out), "seeds must be"),
        (lambda out: rlvr_lite.compare(["lora"], tune=True, out=out), "unknown tune"),
        (lambda out: rlvr_lite.compare(["lora"], budget="x", out=out), "budget must be a whole number"),
        (lambda out: rlvr_lite.plan("tiny", gpu=16), "gpu must be text"),
        (lambda out: rlvr_lite.plan("tiny", gpu="t4", prompt_length="x"), "prompt_length must be"),
        (lambda out: rlvr_lite.list_methods(3), "base_config must be"),
        (lambda out: rlvr_lite.spectrum(None), "run must be the path"),
        (lambda out: rlvr_lite.export(None), "run must be the path"),
    ],
)
def test_a_wrong_type_is_refused_in_a_line(tmp_path, call, advice):
    with pytest.raises(UserError, match=re.escape(advice)):
        call(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_numbers(tmp_path):
    found = rlvr_lite.evaluate("tiny", "chain-sum:ood", np.int64(1), n=np.int64(2), out=tmp_path, progress=False)
    assert json.loads((tmp_path / "evaluation.json").read_text())
    assert found.facts["seed"] == 0


def test_what_python_says_of_a_call_is_left_to_it():
    with pytest.raises(TypeError, match=r"evaluate\(\) got an unexpected keyword argument 'lr'"):
        rlvr_lite.evaluate("tiny", lr=3)


def test_no_tracker_has_its_word_in_transformers():
    assert RunConfig(report_to="none").report_to == ()

"""The live probe and the alarm inside a run: they see what is there, change nothing, and stop it where asked."""

from __future__ import annotations

import pytest

import rlvr_lite
from rlvr_lite.errors import UserError
from rlvr_lite.training import _spectrum as spectrum
from tests.training.test_run import SMALL

RUN = SMALL | {"eval_problems": 0, "steps": 4}
SENTENCE = "reward fell from 0.60 to 0.10"


class Nervous:
    """An alarm that goes off at one step, and is quiet again later."""

    step = 2

    def see(self, row):
        return SENTENCE if row["step"] == self.step else None


def _weights(run):
    return (run.files.adapter / "adapter_model.safetensors").read_bytes()


def _rows(run):
    return [{k: v for k, v in row.items() if "time" not in k and "second" not in k} for row in run.metrics()]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return rlvr_lite.train("lora", out=tmp_path_factory.mktemp("runs") / "lora", spectrum_steps=2, **RUN)


def test_the_probe_changes_nothing(watched, tmp_path):
    plain = rlvr_lite.train("lora", out=tmp_path / "plain", **RUN)
    assert _weights(plain) == _weights(watched)
    unseen = [{k: v for k, v in row.items() if not k.startswith("spectrum/")} for row in _rows(watched)]
    assert unseen == _rows(plain)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_last_measurement_is_that_of_the_saved_run(method, watched, tmp_path):
    run = watched if method == "lora" else rlvr_lite.train(method, out=tmp_path / "run", spectrum_steps=2, **RUN)
    assert [row["step"] for row in run.metrics() if "spectrum/top_left" in row] == [2, 4]
    found, last = rlvr_lite.spectrum(run).runs[0], run.metrics()[-1]
    for side in ("right", "left"):
        assert last[f"spectrum/top_{side}"] == pytest.approx(found.bins(side)[0].ratio, rel=1e-3)
        assert last[f"spectrum/bottom_{side}"] == pytest.approx(found.bins(side)[-1].ratio, rel=1e-3)
    norms = [matrix.relative_norm for matrix in found.moved]
    if method == "lora":
        assert last["spectrum/relative_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-4)


def test_the_trajectory_is_in_the_analysis(watched):
    (rows,) = rlvr_lite.spectrum(watched).trajectories.values()
    assert [row["step"] for row in rows] == [2, 4]
    assert len(rlvr_lite.spectrum(watched).plot("trajectories").axes) == 3


def test_a_run_without_a_matrix_says_what_is_followed_instead(tmp_path, caplog):
    run = rlvr_lite.train("ln_tuning", out=tmp_path / "run", spectrum_steps=2, **RUN)
    assert "relative norm only" in caplog.text
    last = run.metrics()[-1]
    assert last["spectrum/relative_norm"] > 0
    assert "spectrum/top_left" not in last


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_measuring_from_the_same_base(method, watched, tmp_path):
    for _ in range(RUN["steps"]):
        run = rlvr_lite.train(method, out=tmp_path / "run", max_hours=1e-9, spectrum_steps=2, **RUN)
    assert run.status == "done"
    whole = watched if method == "lora" else rlvr_lite.train(method, out=tmp_path / "whole", spectrum_steps=2, **RUN)
    assert _rows(run) == _rows(whole)


def test_a_collapse_stops_the_run_saved_and_says_why(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(spectrum, "CollapseAlarm", Nervous)
    call = {"out": tmp_path / "run", "stop_on_collapse": True, **RUN}
    for _ in range(2):  # the second call finds that nothing is left to do
        run = rlvr_lite.train("lora", **call)
        assert (run.status, run.summary["reason"], run.summary["steps"]) == ("stopped", SENTENCE, 2)
        assert len(run.metrics()) == 2
        assert (run.files.checkpoints / "checkpoint-2").is_dir()
    monkeypatch.undo()  # as if the alarm had been wrong
    assert rlvr_lite.train("lora", **call).status == "done"
    assert _weights(run) == _weights(watched)


def test_a_collapse_is_told_where_it_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(spectrum, "CollapseAlarm", Nervous)
    run = rlvr_lite.train("lora", out=tmp_path / "run", **RUN)
    assert (run.status, run.summary["reason"]) == ("done", SENTENCE)
    assert SENTENCE in caplog.text
    assert SENTENCE in str(run)


def test_a_collapse_in_the_last_step_leaves_nothing_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(spectrum, "CollapseAlarm", Nervous)
    monkeypatch.setattr(Nervous, "step", RUN["steps"])
    run = rlvr_lite.train("lora", out=tmp_path / "run", stop_on_collapse=True, **RUN)
    assert (run.status, run.summary["reason"]) == ("done", SENTENCE)


@pytest.mark.slow
def test_a_learning_rate_far_too_high_is_noticed(tmp_path):
    call = {"steps": 40, "eval_problems": 0, "stop_on_collapse": True, "spectrum_steps": 5, "progress": False}
    run = rlvr_lite.train("lora", out=tmp_path / "run", learning_rate=0.5, **call)
    assert run.status == "stopped"
    assert run.summary["reason"].startswith("reward fell")
    good = rlvr_lite.train("lora", out=tmp_path / "good", **call)
    assert (good.status, good.summary["reason"]) == ("done", "")


def test_steps_between_measurements_are_counted_from_zero():
    with pytest.raises(UserError, match="spectrum_steps"):
        rlvr_lite.RunConfig(spectrum_steps=-1)

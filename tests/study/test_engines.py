"""Who does the work changes nothing, and a worker that is lost costs a try, not the study."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import Future

import pebble
import psutil
import pytest
import torch

from rlvr_lite.errors import UserError
from rlvr_lite.study import check_workers, compare
from rlvr_lite.study._engines import engine
from tests.study import fake_engine

SMALL = {
    "seeds": 2,
    "tune": "none",
    "steps": 4,
    "prompts_per_step": 4,
    "group_size": 8,
    "eval_problems": 6,
    "eval_k": 2,
    "max_completion_length": 24,
    "progress": False,
}
FAKED = {"seeds": 2, "tune": "none", "eval_problems": 6, "eval_k": 2, "steps": 4, "progress": False}


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    monkeypatch.setattr("rlvr_lite.study._study.Study.report", lambda self: None)


def _scores(study):
    return {label: row.scores.tolist() for label, row in study.rows.items()}


@pytest.mark.slow
def test_processes_and_ray_give_the_numbers_of_this_process(tmp_path):
    engines = ["local", "process", *(["ray"] if importlib.util.find_spec("ray") else [])]
    studies = [
        compare(
            ["lora", "ln_tuning"], out=tmp_path / name, engine=name, workers=None if name == "local" else 2, **SMALL
        )
        for name in engines
    ]
    for study in studies[1:]:
        assert _scores(study) == _scores(studies[0])
        assert str(study.leaderboard) == str(studies[0].leaderboard)
    for run in studies[0].rows["lora"].runs.values():
        assert run.summary["identity"] == "proven"


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_with_the_same_leaderboard(tmp_path):
    command = [sys.executable, "-m", "tests.study.killed", str(tmp_path), "6", "0"]
    found = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == {"killed": 6, "equal": True}


@pytest.mark.slow
def test_a_lost_process_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("rlvr_lite.study._engines.alone", fake_engine.die_once)
    study = compare(["lora", "dora"], out=tmp_path / "s", engine="process", workers=2, **FAKED)
    assert all(not row.problem for row in study.rows.values())


@pytest.mark.slow
def test_a_run_that_kills_every_process_costs_its_row_only(tmp_path, monkeypatch):
    monkeypatch.setattr("rlvr_lite.study._engines.alone", fake_engine.die_always)
    study = compare(["lora", "dora"], out=tmp_path / "s", engine="process", workers=2, **FAKED)
    assert "died 3 times" in study.rows["dora"].problem
    assert not study.rows["lora"].problem


@pytest.mark.slow
def test_processes_have_the_environment_of_their_call(tmp_path, monkeypatch):
    monkeypatch.setattr("rlvr_lite.study._engines.alone", fake_engine.note_environment)
    for colour in ("red", "blue"):
        monkeypatch.setenv("COLOUR", colour)
        compare(["lora", "dora"], out=tmp_path / colour, engine="process", workers=1, **FAKED)
        assert {file.read_text() for file in (tmp_path / colour).glob(".colour-*")} == {colour}


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the extra ray")
def test_a_lost_worker_of_ray_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("rlvr_lite.study._engines.alone", fake_engine.die_once)
    study = compare(["lora", "dora"], out=tmp_path / "s", engine="ray", workers=2, **FAKED)
    assert all(not row.problem for row in study.rows.values())


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the extra ray")
def test_a_ray_that_is_started_here_is_reached_from_nowhere_else(tmp_path):
    with engine("ray", tmp_path, workers=1):
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [socket for process in processes for socket in process.net_connections("tcp")]
        listens = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert len(processes) > 2
    assert listens
    assert listens <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the extra ray")
@pytest.mark.parametrize(("address", "says"), [(None, "cannot be started"), ("10.0.0.1:6379", "cannot be reached")])
def test_a_ray_that_does_not_start_says_so_in_one_line(tmp_path, monkeypatch, address, says):
    import ray

    def fails(**_):
        raise Exception("The current node\ntimed out")

    monkeypatch.setattr(ray, "init", fails)
    with (
        pytest.raises(UserError, match=f"{says} .The current node timed out"),
        engine("ray", tmp_path, address=address),
    ):
        pass


def test_a_method_that_cannot_run_leaves_the_shared_base_clean_for_the_next(tmp_path, monkeypatch):
    from rlvr_lite.training import _workflow as workflow

    original = workflow.methods.attach

    def attach(model, name, *args, **kwargs):
        attached = original(model, name, *args, **kwargs)
        if name == "ia3":
            raise RuntimeError("half attached")
        return attached

    monkeypatch.setattr(workflow.methods, "attach", attach)
    small = SMALL | {"seeds": 1}
    study = compare(["ia3", "ln_tuning"], out=tmp_path / "s", reference="ln_tuning", **small)
    assert study.rows["ia3"].problem == "seed 0 failed: RuntimeError: half attached"
    assert study.rows["ln_tuning"].problem == ""
    assert study.rows["ln_tuning"].runs[0].summary["identity"] == "proven"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("locl", {}, "did you mean 'local'"),
        ("process", {"workers": 0}, "at least 1"),
        ("local", {"workers": 2}, "'process'"),
        ("process", {"address": "auto"}, "'ray'"),
        ("ray", {"address": "auto", "workers": 2}, "leave workers out"),
    ],
)
def test_what_an_engine_has_no_use_for_is_refused(name, options, says):
    with pytest.raises(UserError, match=says):
        check_workers(name, **options)


def test_without_ray_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"rlvr-lite\[ray\]"), engine("ray", tmp_path):
        pass


@pytest.mark.parametrize(
    ("visible", "expected"), [("3,5", {"3", "5"}), ("GPU-a1, GPU-b2", {"GPU-a1", "GPU-b2"}), (None, {"0", "1"})]
)
def test_trials_take_the_cards_that_the_user_left_them(tmp_path, monkeypatch, visible, expected):
    devices = []

    class Pool:
        def __init__(self, **_):
            pass

        def schedule(self, function, args):
            devices.append(args[-1])
            return Future()

        def stop(self):
            pass

        join = stop

    monkeypatch.setattr(pebble, "ProcessPool", Pool)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with engine("process", tmp_path) as made:
        for _ in range(made.capacity):
            made.submit(None)
    assert set(devices) == expected

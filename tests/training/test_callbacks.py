"""What a person sees of a run under way."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
from transformers import TrainerControl, TrainerState

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.resolve import check
from rlvr_lite.rewards import get
from rlvr_lite.training import _callbacks as callbacks
from rlvr_lite.training._callbacks import Bar, CleanStop
from tests.training.helpers import trainer


def test_the_bar_shows_what_matters_and_ends_full(tmp_path, capsys):
    made = trainer(tmp_path, reward=get("accuracy"), max_steps=2)
    made.add_callback(Bar("lora"))
    made.train()
    shown = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert "2/2" in shown
    for word in ("lora", "reward=", "accuracy=", "tokens=", "zero-adv=", "tok/s="):
        assert word in shown, word


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    return now


def steps_until_stop(
    stop: CleanStop, clock: list[float], seconds: list[float], most: int = 1000
) -> tuple[int, list[int]]:
    """The step after which it stops, and those after which it saves; ``seconds`` a step, the last repeated."""
    saved = []
    stop.on_train_begin(None, None, None)
    for step in range(1, most + 1):
        control = TrainerControl()
        stop.on_step_begin(None, None, control)
        clock[0] += seconds[min(step, len(seconds)) - 1]
        stop.on_step_end(None, TrainerState(global_step=step, max_steps=most), control)
        if control.should_save:
            saved.append(step)
        if control.should_training_stop or step == most:
            return step, saved
    raise AssertionError


def test_a_run_stops_before_a_step_that_would_not_be_over_in_time(clock):
    assert steps_until_stop(CleanStop(max_hours=1), clock, [310.0]) == (11, [2, 4, 6, 8, 10, 11])
    stop = CleanStop(max_hours=1)
    assert steps_until_stop(stop, clock, [900.0, 300.0])[0] == 8  # after 50 minutes: the next may take 15
    assert "max_hours (1 h)" in stop.reason


def test_without_a_limit_it_saves_every_ten_minutes_and_at_the_end(clock):
    stop = CleanStop(max_hours=None)
    assert steps_until_stop(stop, clock, [250.0], most=10) == (10, [3, 6, 9, 10])
    assert stop.reason == ""


def test_a_tracker_nobody_knows_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match="tensorboard"):
        check(RunConfig(report_to=("tensorbord",)))


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_with_its_package(tracker, monkeypatch):
    asked = dataclasses.replace(RunConfig(), report_to=(tracker,))
    with monkeypatch.context() as patched:
        patched.setattr("rlvr_lite.resolve.find_spec", lambda name: None)
        with pytest.raises(UserError, match=f"pip install {tracker}"):
            check(asked)
    with monkeypatch.context() as patched:
        patched.setattr("rlvr_lite.resolve.find_spec", lambda name: importlib.util.find_spec("torch"))
        check(asked)

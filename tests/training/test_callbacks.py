"""What a person sees of a run under way."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.rewards import get
from rlvr_lite.training.callbacks import Bar
from rlvr_lite.training.resolve import check_early
from tests.training.helpers import trainer


def test_the_bar_shows_what_matters_and_ends_full(tmp_path, capsys):
    made = trainer(tmp_path, reward=get("accuracy"), max_steps=2)
    made.add_callback(Bar("lora"))
    made.train()
    shown = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert "2/2" in shown
    for word in ("lora", "reward=", "accuracy=", "tokens=", "idle=", "tok/s="):
        assert word in shown, word


def test_a_tracker_nobody_knows_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match="tensorboard"):
        check_early(RunConfig(report_to=("tensorbord",)))


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_with_its_package(tracker, monkeypatch):
    asked = dataclasses.replace(RunConfig(), report_to=(tracker,))
    with monkeypatch.context() as patched:
        patched.setattr("rlvr_lite.training.resolve.find_spec", lambda name: None)
        with pytest.raises(UserError, match=f"pip install {tracker}"):
            check_early(asked)
    with monkeypatch.context() as patched:
        patched.setattr("rlvr_lite.training.resolve.find_spec", lambda name: importlib.util.find_spec("torch"))
        check_early(asked)

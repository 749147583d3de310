"""The look ahead tells what is wrong, and touches nothing."""

from __future__ import annotations

import random

import pytest
import torch

from rlvr_lite.training._preflight import Preflight, preflight
from tests.training.helpers import trained, trainer


def _with(**changes):
    plain = {"completions": 32, "max_completion_length": 256, "truncated": 0.0, "unreadable": 0.0, "idle": 0.3}
    return Preflight(**plain | {"reward": 0.4, "seconds_per_step": 1.0} | changes)


def test_nothing_to_say_about_a_healthy_sample():
    assert _with().warnings() == []


def test_each_ailment_is_named_with_its_cure():
    assert "max_completion_length" in _with(truncated=0.6).warnings()[0]
    assert "prompt_style" in _with(unreadable=0.9).warnings()[0]
    assert "easier" in _with(idle=1.0, reward=0.0).warnings()[0]
    assert "harder" in _with(idle=1.0, reward=1.0).warnings()[0]
    assert "warning: " in str(_with(idle=1.0))


def test_shares_are_those_of_the_sample(tmp_path):
    made = trainer(tmp_path)
    found = preflight(made)
    batch = made.collector.collect(0)
    assert found.completions == 16
    assert 0 < found.truncated <= 1
    assert found.unreadable == 1.0
    assert found.seconds_per_step > 0
    assert found.max_completion_length == 12
    assert preflight(trainer(tmp_path, max_completion_length=1)).truncated >= batch.metrics["completions/clipped_ratio"]


def test_training_is_the_same_with_and_without(tmp_path):
    plain, watched = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    state = random.getstate(), torch.get_rng_state()
    preflight(watched)
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    plain.train()
    watched.train()
    assert all(torch.equal(t, trained(watched.model)[n]) for n, t in trained(plain.model).items())
    first = [
        {k: v for k, v in row.items() if "time" not in k and "per_second" not in k}
        for row in watched.metrics_log.rows()
    ]
    second = [
        {k: v for k, v in row.items() if "time" not in k and "per_second" not in k} for row in plain.metrics_log.rows()
    ]
    assert first == second


@pytest.mark.parametrize("options", [{"beta": 0.1}, {"num_iterations": 2}], ids=["KL term", "rollouts used twice"])
def test_it_differentiates_what_training_will(tmp_path, options):
    assert preflight(trainer(tmp_path, **options)).seconds_per_step > 0

"""A reward function may do what it likes; the run goes on."""

from __future__ import annotations

import logging
import time

import pytest

from rlvr_lite.errors import UserError
from rlvr_lite.training.guard import GuardedReward, failures_of, guard
from rlvr_lite.training.parallel import Processes
from tests.training.helpers import trainer


def _good(completions, **_):
    return [float(len(c)) for c in completions]


def _raises_on_b(completions, **_):
    if "b" in completions:
        raise ValueError("b")
    return _good(completions)


def _hangs_on_b(completions, **_):
    if "b" in completions:
        time.sleep(30)
    return _good(completions)


@pytest.mark.parametrize("function", [_raises_on_b, _hangs_on_b])
def test_only_the_sample_that_fails_is_lost(function):
    reward = GuardedReward(function, limit=1.0)
    assert reward(["aa", "b", "cc"]) == [2.0, None, 2.0]
    assert sum(reward.failures.values()) == reward.invalid == 1


def test_columns_are_cut_along_with_the_sample():
    def against(completions, answer, **_):
        if len(completions) > 1:
            raise ValueError("one at a time")
        return [float(completions[0] == answer[0])]

    assert GuardedReward(against, 1.0)(["a", "b"], answer=["a", "c"], trainer_state="whole") == [1.0, 0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "text", [], None])
def test_what_is_no_number_is_no_reward(value):
    assert GuardedReward(lambda completions, **_: [1.0, value], 1.0)(["a", "b"]) == [1.0, None]


def test_numbers_of_every_kind_count():
    import numpy as np
    import torch

    reward = GuardedReward(lambda completions, **_: [True, 2, np.float32(3), torch.tensor(4.0)], 1.0)
    assert reward(list("abcd")) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "broken",
    [
        lambda completions, **_: 1 / 0,
        lambda completions, **_: [1.0] * (len(completions) + 1),
        lambda completions, **_: None,
        lambda completions, **_: "text",
    ],
)
def test_what_never_works_is_an_error_at_the_first_batch(broken):
    with pytest.raises(UserError, match="reward function"):
        GuardedReward(broken, 1.0)(["a", "b", "c", "d"])


def test_one_good_answer_in_the_first_batch_shows_that_it_works():
    def picky(completions, **_):
        if set(completions) != {"a"}:
            raise ValueError("not a")
        return [1.0]

    assert GuardedReward(picky, 1.0)(["a", "b", "b", "b", "b"]) == [1.0, None, None, None, None]


def test_what_worked_once_may_fail_altogether_later():
    working = [True]

    def moody(completions, **_):
        return _good(completions) if working[0] else 1 / 0

    reward = GuardedReward(moody, 1.0)
    assert reward(["a", "bb"]) == [1.0, 2.0]
    working[0] = False
    assert reward(["a", "bb"]) == [None, None]


def test_models_and_coroutines_are_left_to_trl():
    import torch

    async def later(completions, **_):
        return []

    model = torch.nn.Linear(1, 1)
    assert guard([later, model], 1.0) == [later, model]


def test_failures_are_added_up_over_processes():
    class Two(Processes):
        def gather(self, value):
            return [value, [("flaky", {"ValueError: odd": 2, "late": 1}), ("fine", {})]]

    def flaky(completions, **_):
        if len(completions) > 1 or completions[0] == "bb":
            raise ValueError("odd")
        return [1.0]

    async def later(completions, **_):
        return []

    functions = guard([flaky, later], 1.0)
    assert functions[0](["a", "bb"]) == [1.0, None]
    assert failures_of(functions, Processes()) == {"flaky": {"ValueError: odd": 1}}
    assert failures_of(functions, Two()) == {"flaky": {"ValueError: odd": 3, "late": 1}}


def test_a_run_survives_a_reward_that_raises_hangs_and_lies(tmp_path, caplog):
    calls = []

    def hostile(completions, **_):
        calls.append(len(completions))
        kind = len(calls) % 5
        if kind == 2:
            raise RuntimeError("no")
        if kind == 3 and len(completions) > 1:
            return [1.0]
        if kind == 4:
            return [float("nan")] * len(completions)
        return [float(len(c[0]["content"]) % 3) for c in completions]

    with caplog.at_level(logging.WARNING):
        made = trainer(tmp_path, reward=hostile, max_steps=6, reward_limit=2.0)
        made.train()
    rows = made.metrics_log.rows()
    assert len(rows) == 6
    assert sum(row["invalid_rewards"] for row in rows) > 0
    assert all(row["loss"] == row["loss"] for row in rows)
    assert "hostile" in caplog.text

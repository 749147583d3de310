"""A reward function may do what it likes; the run goes on."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from math_verify import parse, verify

from rlvr_lite.deadline import time_limit
from rlvr_lite.errors import UserError
from rlvr_lite.training._guard import AsyncGuardedReward, GuardedReward, failures_of, guard
from rlvr_lite.training._parallel import Processes
from tests.training.helpers import trainer


def _good(completions, **_):
    return [float(len(c)) for c in completions]


def _raises_on_b(completions, **_):
    if "b" in completions:
        raise ValueError("b")
    return _good(completions)


def skipping(function, limit=1.0):
    return GuardedReward(function, limit, "skip")


def _hangs_on_b(completions, **_):
    if "b" in completions:
        time.sleep(30)
    return _good(completions)


@pytest.mark.parametrize("function", [_raises_on_b, _hangs_on_b])
def test_only_the_sample_that_fails_is_lost(function):
    reward = skipping(function)
    assert reward(["aa", "b", "cc"]) == [2.0, None, 2.0]
    assert sum(reward.failures.values()) == reward.invalid == 1


def test_columns_are_cut_along_with_the_sample():
    def against(completions, answer, **_):
        if len(completions) > 1:
            raise ValueError("one at a time")
        return [float(completions[0] == answer[0])]

    assert skipping(against)(["a", "b"], answer=["a", "c"], trainer_state="whole") == [1.0, 0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "text", [], None])
def test_what_is_no_number_is_no_reward(value):
    assert skipping(lambda completions, **_: [1.0, value])(["a", "b"]) == [1.0, None]


def test_numbers_of_every_kind_count():
    import numpy as np

    reward = skipping(lambda completions, **_: [True, 2, np.float32(3), torch.tensor(4.0)])
    assert reward(list("abcd")) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "broken",
    [
        lambda completions, **_: 1 / 0,
        lambda completions, **_: None,
        lambda completions, **_: "text",
    ],
)
def test_what_never_works_is_an_error_at_the_first_batch(broken):
    with pytest.raises(UserError, match="reward function"):
        skipping(broken)(["a", "b", "c", "d"])


def test_one_good_answer_in_the_first_batch_shows_that_it_works():
    def picky(completions, **_):
        if set(completions) != {"a"}:
            raise ValueError("not a")
        return [1.0]

    assert skipping(picky)(["a", "b", "b", "b", "b"]) == [1.0, None, None, None, None]


def test_what_worked_once_may_fail_altogether_later():
    working = [True]

    def moody(completions, **_):
        return _good(completions) if working[0] else 1 / 0

    reward = skipping(moody)
    assert reward(["a", "bb"]) == [1.0, 2.0]
    working[0] = False
    assert reward(["a", "bb"]) == [None, None]


def test_models_and_their_names_are_left_to_trl():
    model = torch.nn.Linear(1, 1)
    assert guard([model, "some/reward-model"], 1.0, "skip") == [model, "some/reward-model"]


def test_coroutines_are_guarded_too():
    async def later(completions, **_):
        await asyncio.sleep(0)
        if "b" in completions:
            raise ValueError("b")
        return _good(completions)

    class Judge:
        async def __call__(self, completions, **_):
            return await later(completions)

    for function in (later, Judge(), functools.partial(later, extra=1)):
        (skip,) = guard([function], 1.0, "skip")
        (strict,) = guard([function], 1.0, "raise")
        assert isinstance(skip, AsyncGuardedReward)
        assert asyncio.run(skip(["aa", "b", "cc"])) == [2.0, None, 2.0]
        with pytest.raises(ValueError, match="b"):
            asyncio.run(strict(["aa", "b", "cc"]))


def test_a_coroutine_that_hangs_is_broken_off():
    async def hangs(completions, **_):
        await asyncio.sleep(3600)

    with pytest.raises(UserError, match="hangs"):
        asyncio.run(AsyncGuardedReward(hangs, 0.05, "raise")(["a"]))


def test_a_function_of_the_user_raises_its_own_error():
    with pytest.raises(ZeroDivisionError):
        GuardedReward(lambda completions, **_: [1 / 0], None, "raise")(["a"])


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_wrong_number_of_rewards_always_raises(on_error):
    calls = []

    def short(completions, **_):
        calls.append(len(completions))
        return [1.0] * (len(completions) if len(calls) == 1 else len(completions) - 1)

    reward = GuardedReward(short, 1.0, on_error)
    assert reward(["a", "b"]) == [1.0, 1.0]
    with pytest.raises(UserError, match="1 rewards for 2"):
        reward(["a", "b"])
    assert calls == [2, 2]


def test_an_infinite_reward_is_refused_and_nan_is_none():
    assert GuardedReward(lambda completions, **_: [float("nan")], 1.0, "raise")(["a"]) == [None]
    with pytest.raises(UserError, match="inf"):
        GuardedReward(lambda completions, **_: [float("inf")], 1.0, "raise")(["a"])


def test_functions_run_on_the_thread_that_trains():
    """``math_verify.parse`` sets an alarm, which only the main thread may."""

    def parses(completions, **_):
        assert threading.current_thread() is threading.main_thread()
        return [float(verify(parse("$7$"), parse(text))) for text in completions]

    for limit in (None, 30.0):
        assert GuardedReward(parses, limit, "raise")(["\\boxed{7}", "8"]) == [1.0, 0.0]


def test_what_swallows_errors_is_broken_off_all_the_same():
    def stubborn(completions, **_):
        while True:
            try:
                time.sleep(3600)
            except Exception:
                continue

    with pytest.raises(UserError, match="stubborn"):
        GuardedReward(stubborn, 0.05, "raise")(["a"])


def test_an_alarm_of_the_caller_outlives_the_alarms_inside():
    def rings(number, frame):
        raise TimeoutError("rung")

    previous = signal.signal(signal.SIGALRM, rings)
    signal.setitimer(signal.ITIMER_REAL, 1000.0)
    try:
        with time_limit(100.0):
            assert verify(parse("$7$"), parse("\\boxed{7}"))
        assert signal.getsignal(signal.SIGALRM) is rings
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError, match="rung"), time_limit(100.0):
            time.sleep(3600)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
def test_the_time_in_which_the_process_was_stopped_is_not_over_the_limit():
    works = """
import time
from rlvr_lite.deadline import time_limit
with time_limit(2.0):
    print("inside", flush=True)
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
"""
    with subprocess.Popen([sys.executable, "-c", works], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"inside\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        assert process.communicate()[1] == b""
    assert process.returncode == 0


def test_off_the_main_thread_there_is_a_limit_too():
    caught = []

    def spins(completions, **_):
        while True:
            pass

    def work():
        try:
            GuardedReward(spins, 0.05, "raise")(["a"])
        except UserError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


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

    functions = guard([flaky, later], 1.0, "skip")
    assert functions[0](["a", "bb"]) == [1.0, None]
    assert failures_of(functions, Processes()) == {"flaky": {"ValueError: odd": 1}}
    assert failures_of(functions, Two()) == {"flaky": {"ValueError: odd": 3, "late": 1}}


def test_a_run_survives_a_reward_that_raises_and_lies(tmp_path, caplog):
    calls = []

    def hostile(completions, **_):
        calls.append(len(completions))
        kind = len(calls) % 5
        if kind == 2:
            raise RuntimeError("no")
        if kind == 4:
            return [float("nan")] * len(completions)
        return [float(len(c[0]["content"]) % 3) for c in completions]

    with caplog.at_level(logging.WARNING):
        made = trainer(tmp_path, reward=hostile, max_steps=6, reward_limit=2.0, on_reward_error="skip")
        made.train()
    rows = made.metrics_log.rows()
    assert len(rows) == 6
    assert sum(row["invalid_rewards"] for row in rows) > 0
    assert all(row["loss"] == row["loss"] for row in rows)
    assert "hostile" in caplog.text


def test_a_function_is_passed_what_trl_passes_and_more_only_where_it_takes_it():
    seen: dict[str, set[str]] = {}

    def strict(prompts, completions, completion_ids):
        seen["strict"] = {"prompts", "completions", "completion_ids"}
        return [1.0] * len(completions)

    def open_(completions, **columns):
        seen["open"] = set(columns)
        return [1.0] * len(completions)

    given = {"prompts": ["a"], "completion_ids": [[1]], "rendered_prompts": ["<a>"]}
    for function in guard([strict, open_], None, "raise"):
        assert function(completions=["b"], **given) == [1.0]
    assert seen["strict"]
    assert seen["open"] == set(given)

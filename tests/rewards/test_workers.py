"""Workers are killed when they overrun, replaced, reachable from anywhere, and gone at the end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlvr_lite.rewards import accuracy, verify_batch
from rlvr_lite.rewards.math import _grader as grader
from rlvr_lite.rewards.math import _workers as workers
from tests.rewards import checks

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDS = [r"\sin 2x", r"\cos 2x", "1", r"1+\sqrt{2}"]
COMPLETIONS = [r"\boxed{2\sin x\cos x}", r"\boxed{2\sin^2 x-1}", r"\boxed{1}", r"\boxed{\sqrt{3+2\sqrt{2}}}"]
CORRECT = [True, False, True, True]


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grader, "LIMITS", grader.Limits(steps=500_000, processor=1))


@pytest.fixture
def no_pool_yet() -> Iterator[None]:
    workers.shutdown()
    yield
    workers.shutdown()


def _hard(number: int) -> tuple[list[str], list[str]]:
    """A question nobody has asked yet, so that it is in no cache."""
    return [rf"\sin {number}x"], [rf"\boxed{{2\sin \frac{{{number}x}}{{2}}\cos \frac{{{number}x}}{{2}}}}"]


def _children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


MISBEHAVED = [
    checks.sleep,
    checks.burn,
    checks.burn_and_swallow,
    checks.one_long_call,
    checks.hog,
    checks.die,
    checks.fail,
]


@pytest.mark.parametrize("check", MISBEHAVED)
def test_a_question_that_misbehaves_costs_only_itself(check: grader.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    workers.ask(checks.double, [0])
    if check is checks.sleep:
        monkeypatch.setattr(grader, "LIMITS", grader.Limits(wall=1.0))
    before = {child.pid for child in _children()}
    answers = workers.ask(check, [None])
    assert [verdict for verdict, *_ in answers] == [None]
    assert answers[0][1].startswith("not judged")
    monkeypatch.undo()
    after = workers.ask(checks.double, list(range(20)))
    assert [verdict for verdict, *_ in after] == [i % 2 == 0 for i in range(20)]
    assert not any(str(os.getpid()) in reason for _, reason, *_ in after)
    assert {child.pid for child in _children()} == before, "the next question must not pay for a restart"


@pytest.mark.parametrize("check", [checks.call_for_ever, checks.call_and_swallow])
def test_calls_are_counted_and_running_out_of_them_is_a_verdict(check: grader.Check) -> None:
    found = workers.ask(check, [None])[0]
    assert found.verdict is False
    assert "500,000 calls" in found.reason
    assert not found.cut


def test_a_finaliser_that_swallows_the_end_of_the_count_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # pytest's is in Python, and counts
    for _ in range(3):
        assert grader.counted(checks.call_in_finalisers, None, 1000) == (
            False,
            "equality was not shown within 1,000 calls",
        )
    assert grader.counted(checks.call_in_finalisers, None, 50_000) == (True, "to the end")


def test_only_what_ran_out_of_wall_time_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers.ask(checks.double, [0])
    monkeypatch.setattr(grader, "LIMITS", grader.Limits(wall=2.0))
    asked = tmp_path / "asked"
    assert workers.ask(checks.slow_at_first, [str(asked)])[0].verdict is True
    assert asked.read_text() == "xx"


def test_what_was_not_judged_is_neither_wrong_nor_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    (gold,), (completion,) = _hard(777)
    monkeypatch.setattr(grader, "LIMITS", grader.Limits(wall=0.0))
    verdict = verify_batch([gold], [completion])[0]
    assert verdict.correct is None
    assert verdict.reason.startswith("not judged")
    assert accuracy([completion, completion], answer=[gold, gold]) == [None, None]
    monkeypatch.undo()
    assert verify_batch([gold], [completion])[0].correct is True


def test_bad_questions_among_good_ones_do_not_shift_the_answers() -> None:
    questions = [0, 1, None, 3, 4, None, 6]
    answers = workers.ask(_double_or_die, questions)
    assert [verdict for verdict, *_ in answers] == [True, False, None, False, True, None, True]


def _double_or_die(value: int | None) -> tuple[bool, str]:
    return checks.die(value) if value is None else checks.double(value)


def test_a_killed_pool_is_replaced() -> None:
    assert workers.ask(checks.double, [2])[0][0] is True
    for child in _children():
        child.send_signal(signal.SIGKILL)
    answers = workers.ask(checks.double, [2, 3, 4])
    assert [verdict for verdict, *_ in answers] == [True, False, True]


def test_shutdown_leaves_no_process_and_the_next_question_starts_anew(no_pool_yet: None) -> None:
    assert _children() == []
    workers.ask(checks.double, [1])
    started = _children()
    assert started
    workers.shutdown()
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started)
    assert workers.ask(checks.double, [2])[0][0] is True


@pytest.mark.parametrize(
    "error", [PermissionError("not allowed"), OSError(38, "no semaphores"), AssertionError("daemonic")]
)
def test_where_processes_are_forbidden_no_verdict_is_lost(
    error: Exception, monkeypatch: pytest.MonkeyPatch, no_pool_yet: None
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(workers._Process, "start", refuse)
    monkeypatch.setattr(workers, "_state", workers._State())
    answers = workers.ask(checks.double, list(range(5)))
    assert [verdict for verdict, *_ in answers] == [True, False, True, False, True]
    assert all(str(os.getpid()) in reason for _, reason, *_ in answers)
    monkeypatch.setattr(grader, "LIMITS", grader.Limits(steps=500_000, wall=2.0))
    assert workers.ask(checks.burn, [None])[0][0] is None
    monkeypatch.setattr(grader, "LIMITS", grader.Limits())
    assert workers.ask(checks.call_for_ever, [None])[0][0] is False
    assert workers.ask(checks.fail, [None])[0][0] is None
    golds, completions = _hard(len(str(error)))
    assert [v.correct for v in verify_batch([*GOLDS, *golds], [*COMPLETIONS, *completions])] == [*CORRECT, True]


def test_from_another_thread(no_pool_yet: None) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(workers.ask(checks.double, [1, 2])))
    thread.start()
    thread.join()
    assert [verdict for verdict, *_ in found[0]] == [False, True]
    assert not any(str(os.getpid()) in reason for _, reason, *_ in found[0])


def _in_child(queue: Any, number: int) -> None:
    queue.put([v.correct for v in verify_batch(*_hard(number))])
    queue.put([str(os.getpid()) in reason for _, reason, *_ in workers.ask(checks.double, [1])])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("daemon", [False, True], ids=["child", "daemonic child"])
def test_from_a_forked_child_whose_parent_has_a_pool(daemon: bool) -> None:
    workers.ask(checks.double, [1])
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue, 101 + daemon), daemon=daemon)
    child.start()
    assert queue.get() == [True]
    assert queue.get() == [False], "the child should have a pool of its own"
    child.join(30)
    assert child.exitcode == 0
    assert workers.ask(checks.double, [2])[0][0] is True


def _run(code: str, *, as_file: Path | None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(code)
    if as_file is not None:
        as_file.write_text(code)
        command, text = [sys.executable, "-W", "error", str(as_file)], None
    else:
        command, text = [sys.executable, "-W", "error", "-"], code
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, env=environment)


QUESTION = r"""
    print("main runs")
    from rlvr_lite.rewards import verify
    from rlvr_lite.rewards.math import _workers as workers
    print(verify(r"\sin 2x", r"\boxed{2\sin x\cos x}"))
    assert workers._state.pool is not None
"""


@pytest.mark.parametrize("kind", ["script", "stdin"])
def test_a_script_without_a_main_guard_runs_once_and_ends(kind: str, tmp_path: Path) -> None:
    done = _run(QUESTION, as_file=tmp_path / "script.py" if kind == "script" else None)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("main runs") == 1
    assert "correct=True" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "raise KeyError('x')", "import os; os.kill(os.getpid(), 9)"])
def test_workers_end_with_their_parent_however_it_ends(end: str, tmp_path: Path) -> None:
    code = f"""
    import psutil
    from rlvr_lite.rewards import verify
    verify(r"\\sin 2x", r"\\boxed{{2\\sin x\\cos x}}")
    print(*[p.pid for p in psutil.Process().children(recursive=True)], flush=True)
    {end}
    """
    done = _run(code, as_file=tmp_path / "script.py")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 2
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_a_worker_is_limited_before_its_first_question() -> None:
    resource = pytest.importorskip("resource")
    verdict, reason, *_ = workers.ask(_limits, [None])[0]
    assert verdict is True, reason
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != grader.ADDRESS_SPACE, "the parent must not be limited"


def _limits(_: Any) -> tuple[bool, str]:
    import resource

    found = (resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CPU)[0])
    return found[0] == grader.ADDRESS_SPACE and found[1] != resource.RLIM_INFINITY, str(found)


def test_limits_that_a_platform_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    monkeypatch.delattr(os, "fork")
    grader._limit_memory()
    assert grader.run_limited(checks.double, 2, grader.LIMITS).verdict is True
    assert grader.run_limited(checks.fail, 2, grader.LIMITS).verdict is None
    assert grader.run_limited(checks.call_for_ever, 2, grader.LIMITS).verdict is False


def test_questions_from_many_threads_are_not_mixed_up() -> None:
    found: dict[int, list[bool | None]] = {}

    def work(offset: int) -> None:
        found[offset] = [verdict for verdict, *_ in workers.ask(checks.double, list(range(offset, offset + 10)))]

    jobs: list[Callable[[], None]] = [lambda offset=offset: work(offset) for offset in range(6)]  # type: ignore[misc]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {offset: [(offset + i) % 2 == 0 for i in range(10)] for offset in range(6)}

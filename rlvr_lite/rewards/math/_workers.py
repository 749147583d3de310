"""Worker processes that can be killed: what only a computer algebra system can decide is decided there.

The pool starts with the first question and ends with the interpreter. Each question has limits (:class:`grader.Limits`),
kept by a child of the worker, so that the worker itself lives on. Workers are spawned, not forked, so a parent with
threads, a GPU or a notebook is safe, and they never import the caller's main module, so a script needs no
``if __name__ == "__main__"``. A forked child forgets its parent's pool and starts its own. Where processes cannot be
started at all, the question is answered in a thread of this process, within the same number of steps.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import multiprocessing
import multiprocessing.util
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from multiprocessing import context, spawn
from typing import Any

from rlvr_lite.rewards.math import _grader as grader
from rlvr_lite.rewards.math._grader import Answer

__all__ = ["ask", "shutdown"]

_SPARE = 60.0  # seconds on top of the wall limit before a worker that says nothing is given up
_RETRY = 60.0

logger = logging.getLogger(__name__)


_bare = threading.local()  # has an attribute "on" that is true while this thread starts a worker


def _start_without_main() -> None:
    """Let processes started under :data:`_bare` begin without importing the caller's main module."""
    original = spawn.get_preparation_data
    if getattr(original, "leaves_main_out", False):
        return

    def preparation(name: str) -> dict[str, Any]:
        data = original(name)
        if getattr(_bare, "on", False):
            data.pop("init_main_from_path", None)
            data.pop("init_main_from_name", None)
        return data

    preparation.leaves_main_out = True  # type: ignore[attr-defined]
    spawn.get_preparation_data = preparation


class _Process(context.SpawnProcess):
    """A spawned process that knows nothing of the caller's main module and may have a daemonic parent."""

    def start(self) -> None:
        parent = multiprocessing.current_process()._config  # type: ignore[attr-defined]
        daemonic = parent.pop("daemon", None)  # DataLoader workers are; ours end with their pipe
        seed = os.environ.get("PYTHONHASHSEED")
        _bare.on = True
        os.environ["PYTHONHASHSEED"] = "0"  # sympy walks through sets: every worker in the same order
        try:
            super().start()
        finally:
            _bare.on = False
            del os.environ["PYTHONHASHSEED"]
            if seed is not None:
                os.environ["PYTHONHASHSEED"] = seed
            if daemonic is not None:
                parent["daemon"] = daemonic


class _Context(context.SpawnContext):
    Process = _Process


class _State:
    """The pool of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: Any = None
        self.registered = False
        self.retry = 0.0  # when processes may be tried again after they were refused


_state = _State()


def _forget() -> None:
    """In a forked child: the pool belongs to the parent."""
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _pool() -> Any:
    """The running pool, started if need be; raises whatever keeps this process from starting others."""
    with _state.lock:
        if _state.pool is None or not _state.pool.active:
            from pebble import ProcessPool

            cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            _start_without_main()
            _discard(_state.pool)
            pool = ProcessPool(
                max_workers=max(2, min(4, cpus)),
                initializer=grader.start_worker,
                context=_Context(),
            )
            try:
                pool.schedule(time.perf_counter)  # starts the workers, here, where it can fail
            except BaseException:
                _discard(pool)
                raise
            _state.pool = pool
            if not _state.registered:
                atexit.register(shutdown)
                multiprocessing.util.Finalize(
                    None, shutdown, exitpriority=100
                )  # multiprocessing's children skip atexit
                _state.registered = True
        return _state.pool


def _discard(pool: Any) -> None:
    if pool is None:
        return
    with contextlib.suppress(Exception):
        pool.stop()
    with contextlib.suppress(Exception):
        pool.join(timeout=5)
    with contextlib.suppress(Exception):
        pool._pool_manager.stop()


def shutdown() -> None:
    """End the workers; the next question starts new ones."""
    _retire(_state.pool)


def ask(check: grader.Check, questions: Sequence[Any]) -> list[Answer]:
    """``check`` of every question, in order. Never raises, and never takes longer than the limits allow.

    What ran out of wall time is asked once more, when nothing else is.

    Args:
        check: a function that a spawned process can import.
        questions: picklable, and safe to hand to it.
    """
    answers: list[Answer | None] = [None] * len(questions)
    for _ in range(2):  # a pool that breaks is replaced once
        missing = [i for i, answer in enumerate(answers) if answer is None]
        if not missing or time.monotonic() < _state.retry:
            break
        try:
            for i, answer in zip(missing, _ask_pool(check, [questions[i] for i in missing]), strict=True):
                answers[i] = answer
            for i in [i for i in missing if (answer := answers[i]) and answer.cut]:
                answers[i] = _ask_pool(check, [questions[i]])[0] or answers[i]
        except Exception as error:
            _state.retry = time.monotonic() + _RETRY
            logger.warning("answers are compared without worker processes (%s: %s)", type(error).__name__, error)
    if None in answers:
        grader.load()
    return [answer if answer is not None else _ask_here(check, questions[i]) for i, answer in enumerate(answers)]


def _ask_pool(check: grader.Check, questions: Sequence[Any]) -> list[Answer | None]:
    """The pool's answers; ``None`` where the pool broke down before it had one."""
    pool, limits = _pool(), grader.LIMITS
    last = limits.wall + _SPARE if hasattr(os, "fork") else limits.wall
    try:
        futures = [
            pool.schedule(grader.run_limited, args=(check, question, limits), timeout=last) for question in questions
        ]
    except RuntimeError:  # it broke in this very moment
        _retire(pool)
        return [None] * len(questions)
    return [_result(pool, future, last) for future in futures]


def _result(pool: Any, future: Any, last: float) -> Answer | None:
    from pebble import ProcessExpired

    started = time.monotonic()
    while True:
        try:
            return future.result(timeout=1.0)
        except FutureTimeout:
            if future.done() and future.exception() is None:
                return future.result()
            if future.done():
                return Answer(None, f"not judged: no answer within {last:g} s", last, cut=True)
            if time.monotonic() - started > last + _SPARE or not pool.active:
                _retire(pool)
                return None
        except ProcessExpired:
            return Answer(None, "not judged: the worker ended", last, cut=True)
        except Exception:  # the pool broke
            return None


def _retire(pool: Any) -> None:
    with _state.lock:
        if _state.pool is pool:
            _state.pool = None
    _discard(pool)


def _ask_here(check: grader.Check, question: Any) -> Answer:
    """Answer in a thread, which is interrupted when its time is over."""
    outcome: list[tuple[bool | None, str]] = []

    def work() -> None:
        with contextlib.suppress(grader.OutOfSteps):
            outcome.append(grader.counted(check, question, grader.LIMITS.steps))

    start = time.perf_counter()
    thread = threading.Thread(target=work, daemon=True, name="rlvr-lite-verifier")
    thread.start()
    thread.join(grader.LIMITS.wall)
    if thread.is_alive() and thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(grader.OutOfSteps))
        thread.join(0.2)
        outcome.clear()
    limit = f"not judged: no answer within {grader.LIMITS.wall:g} s"
    return Answer(*(outcome[0] if outcome else (None, limit)), time.perf_counter() - start, cut=not outcome)

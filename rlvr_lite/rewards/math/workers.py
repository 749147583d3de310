"""Worker processes that can be killed: what only a computer algebra system can decide is decided there.

The pool starts with the first question and ends with the interpreter. Each question has a limit on processor time
(interrupted inside the worker), on wall time (the worker is killed and replaced) and on memory. Workers are spawned, not
forked, so a parent with threads, a GPU or a notebook is safe, and they never import the caller's main module, so a
script needs no ``if __name__ == "__main__"``. A forked child forgets its parent's pool and starts its own. Where
processes cannot be started at all, the question is answered in a thread of this process, under the same time limit.
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
from typing import Any, TypeAlias

from rlvr_lite.rewards.math import grader

__all__ = ["LIMIT", "Answer", "ask", "shutdown"]

LIMIT = 2.0
"""Wall-clock seconds a question may take in its worker before that is killed."""

_STALL = 60.0
_QUESTIONS = 1_000  # a worker is replaced after so many, which bounds the growth of sympy's caches
_MOST = 4
_RETRY = 60.0

Answer: TypeAlias = tuple[bool | None, str, float]
"""The verdict (``None``: it did not come), its reason, and the seconds it took."""

logger = logging.getLogger(__name__)


class _Bare(threading.local):
    """Set while this thread starts a worker."""

    on = False


_bare = _Bare()


def _start_without_main() -> None:
    """Let processes started under :data:`_bare` begin without importing the caller's main module."""
    original = spawn.get_preparation_data
    if getattr(original, "leaves_main_out", False):
        return

    def preparation(name: str) -> dict[str, Any]:
        data = original(name)
        if _bare.on:
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
        _bare.on = True
        try:
            super().start()
        finally:
            _bare.on = False
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


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool() -> Any:
    """The running pool, started if need be.

    Raises:
        Exception: whatever keeps this process from starting others.
    """
    with _state.lock:
        if _state.pool is None or not _state.pool.active:
            from pebble import ProcessPool

            _start_without_main()
            _discard(_state.pool)
            pool = ProcessPool(
                max_workers=max(2, min(_MOST, _cpus())),
                max_tasks=_QUESTIONS,
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
    with _state.lock:
        pool, _state.pool = _state.pool, None
        _discard(pool)


def ask(check: grader.Check, questions: Sequence[Any]) -> list[Answer]:
    """``check`` of every question, in order. Never raises, and never takes longer than the limits allow.

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
        except Exception as error:
            _state.retry = time.monotonic() + _RETRY
            logger.warning("answers are compared without worker processes (%s: %s)", type(error).__name__, error)
    if None in answers:
        grader.load()
    return [answer if answer is not None else _ask_here(check, questions[i]) for i, answer in enumerate(answers)]


def _ask_pool(check: grader.Check, questions: Sequence[Any]) -> list[Answer | None]:
    """The pool's answers; ``None`` where the pool broke down before it had one."""
    pool = _pool()
    try:
        futures = [
            pool.schedule(grader.run_limited, args=(check, question, grader.SECONDS), timeout=LIMIT)
            for question in questions
        ]
    except RuntimeError:  # it broke in this very moment
        _retire(pool)
        return [None] * len(questions)
    return [_result(pool, future) for future in futures]


def _result(pool: Any, future: Any) -> Answer | None:
    from pebble import ProcessExpired

    started = time.monotonic()
    while True:
        try:
            return future.result(timeout=1.0)
        except FutureTimeout:
            if future.done() and future.exception() is None:
                return future.result()
            if future.done():
                return None, f"no verdict within {LIMIT:g} s: the worker was killed", LIMIT
            if time.monotonic() - started > _STALL or not pool.active:
                _retire(pool)
                return None
        except ProcessExpired:
            return None, "no verdict: the worker ran out of memory or processor time", LIMIT
        except MemoryError:
            return None, "no verdict within the memory limit", LIMIT
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
        try:
            outcome.append(check(question))
        except grader.OutOfTime:
            pass
        except Exception as error:
            outcome.append((None, f"could not be compared ({type(error).__name__})"))

    start = time.perf_counter()
    thread = threading.Thread(target=work, daemon=True, name="rlvr-lite-verifier")
    thread.start()
    thread.join(LIMIT)
    if thread.is_alive() and thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(grader.OutOfTime))
        thread.join(0.2)
    verdict, reason = outcome[0] if outcome else (None, f"no verdict within {LIMIT:g} s")
    return verdict, reason, time.perf_counter() - start

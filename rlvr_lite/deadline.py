"""A limit in seconds for code of others that runs on this thread: reward functions, templates of a tokenizer."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from rlvr_lite.errors import UserError

__all__ = ["time_limit"]

_PORTIONS = 10  # of a limit, counted one by one: a process that was stopped or asleep lost one of them, not the limit
_AGAIN = 1.0  # seconds until code that swallowed the interruption is interrupted again


class _Overrun(BaseException):
    """Code took longer than it may; no ``except Exception`` of its own takes it for an answer."""


def _interrupted(number: int, frame: Any) -> None:
    raise _Overrun


@contextlib.contextmanager
def _alarm_kept() -> Iterator[None]:
    """The alarm that was set outside is as it was, less the time spent, whatever alarms are set inside."""
    handler, (left, every), began = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL), time.time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if handler is not None:
            signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.time() - began), 1e-3), every)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Break off what runs inside after ``seconds``; it runs on this thread, as it would without a limit.

    A watchdog thread interrupts. It uses SIGURG, whose default is to be ignored, so that SIGALRM stays free for what
    runs inside (``math_verify.parse`` takes it); an alarm set outside still rings. Off the main thread, and where there
    is no such signal, the interruption arrives at the next line of Python.

    Raises:
        UserError: the time is over.
    """
    if seconds is None:
        yield
        return
    done, lock = threading.Event(), threading.Lock()
    thread, posix = threading.current_thread(), hasattr(signal, "SIGURG") and hasattr(signal, "setitimer")
    by_signal = posix and thread is threading.main_thread()

    def interrupt() -> None:
        portion, left = seconds / _PORTIONS, _PORTIONS
        while not done.wait(portion):
            left -= 1
            if left > 0:
                continue
            with lock:
                if done.is_set():
                    return
                if by_signal:
                    signal.pthread_kill(thread.ident or 0, signal.SIGURG)
                else:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Overrun)
                    )
            portion = _AGAIN

    watchdog = threading.Thread(target=interrupt, daemon=True, name="time-limit")
    previous = signal.signal(signal.SIGURG, _interrupted) if by_signal else None
    try:
        with _alarm_kept() if by_signal else contextlib.nullcontext():
            try:
                watchdog.start()
                yield
            finally:
                done.set()
                with lock:  # nothing is sent from here on
                    pass
    except _Overrun:
        raise UserError(f"did not return within {seconds:g} s") from None
    finally:
        if by_signal:
            signal.signal(signal.SIGURG, previous or signal.SIG_DFL)

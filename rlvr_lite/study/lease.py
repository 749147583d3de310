"""A lease on a piece of work: one holder at a time, and what a dead holder held is free again."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

__all__ = ["held", "lease"]

#: A lease that was not renewed for so many seconds is void; its holder renews it six times as often.
_SECONDS = 60.0


@contextmanager
def lease(path: Path, *, seconds: float = _SECONDS) -> Iterator[bool]:
    """Hold ``path`` while inside; yields whether it could be had.

    The holder renews the lease from a thread. One of this machine whose process is gone is void at once, one of another
    machine once it was not renewed for ``seconds``.

    Args:
        path: of the lease file; its folder must exist.
        seconds: after which an unrenewed lease is void.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": os.urandom(8).hex()}
    with FileLock(path.with_suffix(".lock")):  # looking and taking are one act
        taken = held(path, seconds=seconds)
        if not taken:
            path.write_text(json.dumps(mine), encoding="utf-8")
    if taken:
        yield False
        return
    over = threading.Event()

    def renew() -> None:
        while not over.wait(seconds / 6):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=renew, daemon=True, name=f"lease {path.name}")
    thread.start()
    try:
        yield True
    finally:
        over.set()
        thread.join()
        with FileLock(path.with_suffix(".lock")):
            if _read(path) == mine:  # it may have been taken over while this machine slept
                path.unlink(missing_ok=True)


def held(path: Path, *, seconds: float = _SECONDS) -> bool:
    """Whether somebody alive holds the lease."""
    holder = _read(path)
    if not holder:
        return False
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > seconds:
            return False
    return holder.get("host") != socket.gethostname() or _alive(int(holder.get("pid", 0)))


def _read(path: Path) -> dict[str, str | int]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0

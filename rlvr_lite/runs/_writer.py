"""One writer a folder: a lock of the operating system, which ends with its process, and a note of who holds it."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from rlvr_lite.errors import UserError, printable
from rlvr_lite.records import make_folder, read_json, write_json

__all__ = ["Busy", "lock_beside", "sweep", "writer"]

logger = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_LEFT = re.compile(r"\.(?P<name>.+)\.\d+(-\d+)?\.(?P<kind>tmp|old)")


class Busy(UserError):
    """Somebody else writes there."""


@contextmanager
def writer(
    lock: Path, doing: str, *, wait: bool = False, step: Callable[[], int] | None = None, folder: str = "--out"
) -> Iterator[None]:
    """Be the only one who writes in a folder, or say who is.

    The lock is the operating system's: a process that dies, however it does, holds it no longer, and one that is stopped
    or asleep still does. A file system without locks gets a file that names the process instead.

    Args:
        lock: the lock file; its folder is made, and the file is gone afterwards.
        doing: what is done there, such as ``training``.
        wait: until the other is done.
        step: at which step the other is, for the message.
        folder: by which name the caller chose the folder, for the message.

    Raises:
        Busy: somebody else is at work there, and ``wait`` is not set.
        UserError: the folder cannot be made or written to.
    """
    fresh = not lock.parent.exists()
    note = lock.with_name(f"{lock.name}.json")
    make_folder(lock.parent, folder)
    try:
        held = _acquire(lock, note, wait, step, folder)
    except OSError as error:
        raise UserError(f"cannot write in {lock.parent}: {error.strerror or error}; choose another {folder}") from error
    try:
        owner = {"doing": doing, "host": socket.gethostname(), "pid": os.getpid(), "started": int(time.time())}
        sweep(lock.parent, names=(note.name,))
        write_json(note, owner)
        yield
    finally:
        for path in (note, lock):
            with suppress(OSError):  # Windows deletes no open file
                path.unlink(missing_ok=True)
        held.release()
        if fresh:
            with suppress(OSError):  # unless something was written
                lock.parent.rmdir()


def _acquire(lock: Path, note: Path, wait: bool, step: Callable[[], int] | None, folder: str) -> BaseFileLock:
    said = False
    while True:
        try:
            held = _take(lock)
        except Timeout:
            if not wait:
                waiting = "wait for it (wait=True, --wait) or " if folder == "--out" else ""
                raise Busy(f"{_who(lock, note, step)}: {waiting}choose another {folder}") from None
            if not said:
                logger.warning("waiting: %s", printable(_who(lock, note, step)))
            said = True
            time.sleep(0.2)
            continue
        try:
            _take(lock).release()  # had, so what is held is a file that its last holder deleted meanwhile
        except Timeout:
            return held
        held.release()


def _take(lock: Path) -> BaseFileLock:
    """The lock at once, or ``Timeout``."""
    held: BaseFileLock = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout) or getattr(error, "errno", errno.ENOSYS) not in _NO_LOCKS:
            raise
        held = SoftFileLock(_soft(lock))
        held.acquire(timeout=0)
    return held


def _who(lock: Path, note: Path, step: Callable[[], int] | None) -> str:
    """Who holds a lock, as far as its note can be read."""
    soft = _soft(lock)
    left = f"; its file system has no locks: once that process is gone, delete {soft}" if soft.exists() else ""
    try:
        owner = read_json(note)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(owner["started"])))
        who = f"process {owner['pid']} on {owner['host']}"
        said = f"{owner['doing']} is under way in {lock.parent} since {since} ({who}"
    except (UserError, LookupError, TypeError, ValueError, OverflowError, OSError):
        return f"another process is at work in {lock.parent}{left}"
    return f"{said}{'' if step is None else f', at step {step()}'}){left}"


def _soft(lock: Path) -> Path:
    """The file that stands for a lock where there are none."""
    return lock.with_name(f"{lock.name}.soft")


def lock_beside(target: Path) -> Path:
    """The lock of a file or folder that does not exist yet, in the folder where it will."""
    return target.with_name(f".{target.name}.lock")


def sweep(*folders: Path, names: Collection[str] | None = None) -> None:
    """Delete what writers that died left unfinished in these folders; only for who holds their lock.

    A folder that was being replaced when its writer died comes back as it was.

    Args:
        *folders: that may not exist.
        names: only of these files and folders in them; by default of all.
    """
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _LEFT.fullmatch(path.name)
            if match is None or (names is not None and _written(match["name"]) not in names):
                continue
            with suppress(OSError):
                if match["kind"] == "old" and not path.with_name(match["name"]).exists():
                    os.replace(path, path.with_name(match["name"]))
                elif path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def _written(name: str) -> str:
    """What was to be written under a name, also where it was inside of what was being written itself."""
    while match := _LEFT.fullmatch(name):
        name = match["name"]
    return name

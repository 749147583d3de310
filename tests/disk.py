"""A file layer under which the n-th operation fails, is torn, or is the last before the process or the power is gone.

What a program may count on after a power cut is what it synced: the content of a file since its last fsync, the names in
a folder since the folder's. ``Disk`` keeps both in mind and, when the power goes, leaves only that.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError

__all__ = ["Disk", "Fault", "State", "lay"]

#: ``fail``: nothing of it is done. ``tear``: half of it is. ``kill``: the process ends, and what it wrote stays.
#: ``cut``: the power goes, with all that was not synced. ``names``: it goes, but names stay and files have zeros.
Fault = Literal["fail", "tear", "kill", "cut", "names"]

#: Files below a folder with their content; ``None`` is a folder, and comes before what is in it.
State = dict[str, bytes | None]


class Disk:
    """Counts what the process does to files below ``root``; at the chosen operation the fault happens.

    Args:
        root: an existing folder; what is in it counts as synced.
        fault: what happens.
        moment: at which operation, from 0; ``None`` only counts.
        before: is given, before every operation, what ``kill``, ``cut`` or ``names`` would leave of it.
    """

    def __init__(
        self,
        root: Path,
        fault: Fault = "fail",
        moment: int | None = None,
        before: Callable[[State], None] | None = None,
    ):
        self.root, self.fault, self.moment, self.before = Path(root).resolve(), fault, moment, before
        self.done: list[str] = []
        self._process = os.getpid()
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}  # open files, so that no number of a deleted one is given out again
        self._undo: list[tuple[Any, str, Any]] = []
        if self.fault not in ("cut", "names"):
            return
        for folder, _, files in os.walk(self.root):
            self._note(folder)
            for name in files:
                self._note(os.path.join(folder, name))

    def __enter__(self) -> Disk:
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "truncate")):
            self._patch(owner, name, self._guarded(name, getattr(owner, name)))
        opening = self._opening(io.open)
        self._patch(builtins, "open", opening)
        self._patch(io, "open", opening)
        self._patch(safetensors.torch, "serialize_file", self._tensors(safetensors.torch.serialize_file))
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            owner, name, original = self._undo.pop()
            setattr(owner, name, original)
        for handle in self._held.values():
            os.close(handle)
        self._held.clear()

    def _patch(self, owner: Any, name: str, changed: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, changed)

    def _mine(self, path: Any) -> bool:
        if os.getpid() != self._process:
            return False
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        inside = os.path.abspath(os.fspath(path))
        return inside == str(self.root) or inside.startswith(f"{self.root}/")

    def _now(self, what: str) -> bool:
        """Whether it is this operation that does not come through as it should."""
        self.done.append(what)
        if self.before is not None:
            self.before(self.left())
        if len(self.done) - 1 != self.moment:
            return False
        if self.fault in ("cut", "names"):
            self.moment = None
            lay(self.root, self.left())
        if self.fault in ("kill", "cut", "names"):
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def _guarded(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._mine(path):
                return original(path, *args, **kwargs)
            if self._now(name):
                raise _refused(errno.EIO if name == "fsync" else errno.ENOSPC)
            result = original(path, *args, **kwargs)
            if name == "fsync" and self.fault in ("cut", "names"):
                self._note(f"/proc/self/fd/{path}")
            return result

        return guarded

    def _opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def opening(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+") or not self._mine(path):
                return original(path, mode, *args, **kwargs)
            if self._now("open"):
                raise _refused(errno.ENOSPC)
            return _File(self, original(path, mode, *args, **kwargs))

        return opening

    def _tensors(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def tensors(found: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._mine(path):
                return original(found, path, *args, **kwargs)
            failing = self._now("tensors")
            if not failing or self.fault == "tear":
                original(found, path, *args, **kwargs)
            if failing and self.fault == "tear":
                self._undo_of("truncate")(path, os.stat(path).st_size // 2)
            if failing:
                raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        return tensors

    def _undo_of(self, name: str) -> Any:
        return next(original for _, known, original in self._undo if known == name)

    # ---- what is on the disk ----------------------------------------------------------------------------------

    def _note(self, path: str) -> None:
        """A file or folder as it is now will be there after a power cut."""
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            handle = os.open(path, os.O_RDONLY)
            self._content[found.st_ino] = os.pread(handle, found.st_size, 0)
            os.close(handle)
            self._hold(path, found.st_ino)
            return
        names = {entry.name: entry.inode() for entry in os.scandir(path)}
        self._names[found.st_ino] = names
        for name, number in names.items():
            self._hold(os.path.join(path, name), number)

    def _hold(self, path: str, number: int) -> None:
        if number not in self._held:
            self._held[number] = os.open(path, os.O_RDONLY)

    def left(self) -> State:
        """What a process that is killed now leaves or, under ``cut`` and ``names``, what is there after a power cut."""
        if self.fault == "cut":
            return self._synced(os.stat(self.root).st_ino)
        found: State = {}
        for folder, folders, files in os.walk(self.root):
            place = os.path.relpath(folder, self.root)
            found |= dict.fromkeys((os.path.normpath(f"{place}/{name}") for name in folders), None)
            for name in files:
                path = os.path.join(folder, name)
                content = Path(path).read_bytes()
                if self.fault == "names":
                    synced = self._content.get(os.stat(path).st_ino, b"")
                    content = synced + bytes(max(0, len(content) - len(synced)))
                found[os.path.normpath(f"{place}/{name}")] = content
        return found

    def _synced(self, number: int, place: str = "") -> State:
        """Only what lies under synced names, with synced content."""
        found: State = {}
        for name, child in self._names.get(number, {}).items():
            if stat.S_ISDIR(os.fstat(self._held[child]).st_mode):
                found |= {f"{place}{name}": None} | self._synced(child, f"{place}{name}/")
            else:
                found[f"{place}{name}"] = self._content.get(child, b"")
        return found


def lay(root: Path, state: State) -> None:
    """Leave in an existing folder what a fault left, and nothing else."""
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name, content in state.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


class _File:
    """A file opened for writing, each write of which counts."""

    def __init__(self, disk: Disk, file: Any):
        self._disk, self._file = disk, file

    def write(self, data: Any) -> Any:
        if self._disk._now("write"):
            if self._disk.fault == "tear":
                self._file.write(data[: len(data) // 2])
                self._file.flush()
            raise _refused(errno.ENOSPC)
        return self._file.write(data)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _refused(code: int) -> OSError:
    return OSError(code, os.strerror(code))

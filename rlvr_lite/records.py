"""What is written to disk, and how: atomic files, JSON lines with a position, directories that appear whole.

Only JSON and safetensors are ever written or read; pickles are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError

__all__ = [
    "MANIFEST",
    "JsonLines",
    "atomic_directory",
    "damage",
    "hash_file",
    "is_file",
    "make_folder",
    "read_json",
    "read_jsonl",
    "read_text",
    "refuse_pickles",
    "text_lines",
    "write_json",
    "write_manifest",
    "write_text",
]

MANIFEST = "manifest.json"
_OF_SYSTEM = re.compile(r"\(os error \d+\)")  # as safetensors says that the disk is full
_LONGEST_LINE = 2**24  # bytes: a row has thousands
_LARGEST_TEXT = 2**28  # bytes of a file that can only be read as a whole
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def is_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        UserError: nobody can tell, since its folder may not be looked into.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise _cannot_read(path, error) from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    with _reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force a file or a directory's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some file systems refuse fsync on a directory
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def _cannot_read(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror or error}")


def _cannot_write(path: Path, error: BaseException) -> UserError:
    said = getattr(error, "strerror", None) or error
    return UserError(f"cannot write {path}: {said}; free some space or choose another --out")


def make_folder(path: Path, named: str = "--out") -> Path:
    """The folder with all above it, their names on the disk too, so that what is synced in it can be found.

    Raises:
        UserError: it cannot be made; ``named`` is how the caller chose it.
    """
    try:
        fresh = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(fresh):
            _sync(folder.parent)
    except OSError as error:
        raise UserError(f"cannot write in {path}: {error.strerror or error}; choose another {named}") from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part.

    Raises:
        UserError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused because JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def _reading(path: Path) -> Iterator[BufferedReader]:
    """A file to read from; whatever keeps it from being read as one line."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path} is a pipe or a device, not a file: put a file in its place")
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise _cannot_read(path, error) from error


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for its other end


def _decoded(path: Path, data: bytes, before: int = 0) -> str:
    if not before and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is UTF-16 text: save it as UTF-8")
    try:
        return data.decode("utf-8" if before else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text ({e.reason} at byte {before + e.start}): save it as UTF-8") from e


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: the file is missing, is not UTF-8, or has more than 256 MiB.
    """
    with _reading(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_TEXT:
            raise UserError(f"{path} has more than {_LARGEST_TEXT >> 20} MiB, too much for one text: split it")
        return _decoded(path, file.read())


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers from 1, of which never more than one is held.

    Raises:
        UserError: the file is missing or is not UTF-8, or a line has more than 16 MiB, of which no more is read.
    """
    with _reading(path) as file:
        before = 0
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), 1):
            if len(line) > _LONGEST_LINE:
                raise UserError(f"{path}, line {number} has more than 16 MiB: write one row a line, or delete that one")
            yield number, _decoded(path, line, before)
            before += len(line)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # not JSON, a number of thousands of digits, too deep
        raise UserError(f"{path} is not JSON ({error}): mend it, copy it again or make it anew") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; blank lines are skipped.

    Raises:
        UserError: the file is missing, or a line is not a JSON object (its number is named).
    """
    rows = []
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also a number of thousands of digits, or too deep
            said = getattr(error, "msg", error)
            raise UserError(f"{path}, line {number} is not JSON ({said}): mend or delete that line") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is not a JSON object: write {{...}} with named columns")
        rows.append(row)
    return rows


class JsonLines:
    """An append-only log of one JSON object a line, which can be cut back to an earlier position.

    A checkpoint stores :attr:`position`; a resumed run calls :meth:`cut`, so that no line is lost or written twice.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def position(self) -> int:
        """Length of the log in bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Write the rows in one write.

        Raises:
            UserError: the disk is full or not writable.
        """
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        before = 0
        try:
            before = self.position
            with open(self.path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)  # half of a surrogate pair becomes the escape that JSON has for it
        except OSError as error:
            with suppress(UserError, OSError):
                self.cut(before)  # no half line for the next one to be appended to
            raise _cannot_write(self.path, error) from error

    def sync(self) -> None:
        """Force what was written to the disk, before something that counts on it is.

        Raises:
            UserError: the disk refuses.
        """
        try:
            if self.path.exists():
                _sync(self.path)
                _sync(self.path.parent)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def cut(self, position: int) -> None:
        """Forget everything after ``position`` bytes; a shorter log stays as it is.

        Raises:
            UserError: the disk refuses.
        """
        try:
            if self.position > position:
                os.truncate(self.path, position)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def whole(self, upto: int | None = None) -> int:
        """Length of the longest prefix of whole lines, in bytes: without what a power cut tore or filled with zeros.

        Args:
            upto: only so far, where a line has to end.
        """
        length = 0
        if not self.path.exists():
            return length
        with _reading(self.path) as file:
            while line := file.readline(_LONGEST_LINE + 1):
                end = length + len(line)
                if not line.endswith(b"\n") or end > (end if upto is None else upto) or not _is_row(line):
                    break
                length = end
        return length

    def rows(self) -> list[dict[str, Any]]:
        """Everything written so far; empty if nothing was."""
        return read_jsonl(self.path) if self.path.exists() else []


def _is_row(line: bytes) -> bool:
    try:
        return not line.strip() or isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def refuse_pickles(directory: Path) -> None:
    """Raise a ``UserError`` if ``directory`` holds a file that could run code when it is loaded."""
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in _PICKLES:
            raise UserError(f"{path} is a pickle, which can run code when loaded: convert it to safetensors first")


def write_manifest(directory: Path, files: Iterable[Path], **facts: Any) -> None:
    """Write ``manifest.json`` with the hash of each of ``files``, which are on the disk before it is.

    Args:
        directory: that they lie in, at any depth.
        files: what the manifest covers.
        **facts: stored beside the hashes.
    """
    hashes = {}
    try:
        for path in sorted(files):
            _sync(path)
            hashes[path.relative_to(directory).as_posix()] = hash_file(path)
        for folder in sorted({directory / parent for name in hashes for parent in Path(name).parents}):
            _sync(folder)  # the names of these files
    except OSError as error:
        raise _cannot_write(directory / MANIFEST, error) from error
    write_json(directory / MANIFEST, {**facts, "files": hashes})


@contextmanager
def atomic_directory(target: Path, **facts: Any) -> Iterator[Path]:
    """A directory that appears under its name complete, with a manifest of hashes, or not at all.

    Files are written to a hidden sibling, synced, listed in ``manifest.json`` (written last) and moved into place by
    one rename. An existing ``target`` is replaced.

    Args:
        target: where the directory shall stand.
        **facts: stored in the manifest beside the hashes.

    Yields:
        The directory to write into.

    Raises:
        UserError: the disk is full or not writable, or the name is that of a file.
    """
    if target.is_file():
        raise UserError(f"{target} is a file, where a folder is to be written: choose another name")
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        make_folder(target.parent)
        temporary.mkdir()
        yield temporary
        write_manifest(temporary, (path for path in temporary.rglob("*") if path.is_file()), **facts)
        if target.exists():
            old = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.old")
            os.replace(target, old)
            os.replace(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, target)
        _sync(target.parent)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or _OF_SYSTEM.search(str(error)):
            raise _cannot_write(target, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def damage(directory: Path) -> str | None:
    """Why a directory with a manifest of hashes cannot be trusted; ``None`` if it is whole.

    Raises:
        UserError: its files may not be read by whoever asks.
    """
    if not is_file(directory / MANIFEST):
        return f"{directory.name} has no {MANIFEST}: it was not written to its end"
    try:
        files = read_json(directory / MANIFEST)["files"].items()
    except (UserError, KeyError, TypeError, AttributeError):
        return f"{directory.name}/{MANIFEST} is unreadable"
    for name, expected in files:
        path = directory / name
        try:
            if not is_file(path):
                return f"{directory.name}/{name} is missing"
            if hash_file(path) != expected:
                return f"{directory.name}/{name} differs from its hash"
        except UserError as error:
            if isinstance(error.__cause__, PermissionError):  # nothing is wrong with what may not be read
                raise
            return str(error)
    return None

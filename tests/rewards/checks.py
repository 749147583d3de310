"""Questions that misbehave in a worker."""

from __future__ import annotations

import os
import time
from typing import Any


def double(value: int) -> tuple[bool, str]:
    """A check that behaves."""
    return value % 2 == 0, f"{value} in {os.getpid()}"


def sleep(_: Any) -> tuple[bool, str]:
    """Uses no processor time and never ends."""
    while True:
        time.sleep(60)


def burn(_: Any) -> tuple[bool, str]:
    """Uses processor time and never ends."""
    while True:
        pass


def burn_and_swallow(_: Any) -> tuple[bool, str]:
    """Cannot be interrupted from Python."""
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def _nothing() -> None:
    pass


def call_for_ever(_: Any) -> tuple[bool, str]:
    """Calls of Python functions without end."""
    while True:
        _nothing()


def call_and_swallow(_: Any) -> tuple[bool, str]:
    """The same, deaf to exceptions."""
    while True:
        try:
            while True:
                _nothing()
        except BaseException:
            pass


class _Finalised:
    def __del__(self) -> None:
        for _ in range(2000):
            _nothing()


def call_in_finalisers(_: Any) -> tuple[bool, str]:
    """More calls than are allowed, the first of them where every exception is swallowed; without a limit it ends."""
    _Finalised()
    for _ in range(20_000):
        _nothing()
    return True, "to the end"


def slow_at_first(path: str) -> tuple[bool, str]:
    """Too late the first time, as on a busy machine."""
    with open(path, "a+") as file:
        file.write("x")
        file.flush()
        file.seek(0)
        while file.read() == "x":
            time.sleep(60)
    return True, ""


def one_long_call(_: Any) -> tuple[bool, str]:
    """A single call into C that takes hours."""
    return 9 ** (9**9) > 0, ""


def hog(_: Any) -> tuple[bool, str]:
    """More memory than there may be."""
    return len(bytearray(2**36)) > 0, ""


def die(_: Any) -> tuple[bool, str]:
    """The process ends."""
    os._exit(3)


def fail(_: Any) -> tuple[bool, str]:
    """An exception."""
    raise LookupError("boo")

"""Progress: a bar where somebody watches, and a line now and then in a file or the log of a CI run; and time in words."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Lines", "bar", "duration"]

_EVERY = 60.0  # seconds between two lines
_FORMAT = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def duration(seconds: float) -> str:
    """A time span in two units at most.

    >>> duration(42.4), duration(3700), duration(200_000)
    ('42 s', '1 h 1 min', '2 d 7 h')
    """
    left = round(seconds)
    for unit, smaller, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{left} s"


def bar(*, desc: str, unit: str, total: int | None = None, initial: int = 0, shown: bool = True) -> Any:
    """A tqdm bar in a terminal or a notebook, and :class:`Lines` where what is written stays as it is written.

    Args:
        desc: what goes on.
        unit: what is counted.
        total: how many there are.
        initial: how many are done.
        shown: ``False`` shows nothing.
    """
    if not shown:
        return Lines(desc=desc, shown=False)
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        from tqdm.auto import tqdm

        return tqdm(desc=desc, unit=unit, total=total, initial=initial, dynamic_ncols=True)
    return Lines(desc=desc, total=total, initial=initial)


class Lines:
    """As much of tqdm as is used here, in whole lines: the first step, one a minute, and the end.

    Args:
        desc: what goes on.
        total: how many there are.
        initial: how many are done.
        shown: ``False`` says nothing.
    """

    def __init__(self, *, desc: str, total: int | None = None, initial: int = 0, shown: bool = True):
        self._silent = not shown
        self.desc, self.total, self.n = desc, total, initial
        self._initial, self._postfix, self._shown = initial, "", initial
        self._began, self._said = time.monotonic(), -_EVERY

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_postfix(self, values: dict[str, Any], refresh: bool = True) -> None:
        """What stands behind the numbers."""
        self.set_postfix_str(", ".join(f"{name}={value}" for name, value in values.items()), refresh)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """The same as a text."""
        self._postfix = text
        if refresh:
            self.refresh()

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self.n += n
        self.refresh()

    def refresh(self) -> None:
        """Say where it stands, if that is news and the last line is old."""
        if self.n > self._shown and time.monotonic() - self._said >= _EVERY:
            self._say()

    def close(self) -> None:
        """Say where it ended."""
        if self.n > self._shown:
            self._say()

    def _say(self) -> None:
        if self._silent:
            return
        from tqdm.std import tqdm

        self._said, self._shown = time.monotonic(), self.n
        elapsed = self._said - self._began
        form = _FORMAT if self.total else "{desc}: {n_fmt} [{elapsed}{postfix}]"
        options: dict[str, Any] = {"prefix": self.desc, "postfix": self._postfix or None, "initial": self._initial}
        line = tqdm.format_meter(self.n, self.total, elapsed, bar_format=form, **options)
        print(line, file=sys.stderr, flush=True)

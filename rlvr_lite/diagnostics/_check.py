"""One check: what was found, what was allowed, and the way out; a check that breaks is one that failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rlvr_lite.errors import printable

__all__ = ["Check", "Finding", "Skipped", "carry_out"]

Verdict = Literal["ok", "failed", "skipped"]


class Skipped(Exception):
    """A check has nothing to look at here; its text says why."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        figure: measured.
        limit: what it had to keep; empty where it only informs.
        ok: whether it did.
        remedy: the way out where it did not.
    """

    figure: str
    limit: str = ""
    ok: bool = True
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """A check that was carried out.

    Attributes:
        name: what was looked at.
        figure: what was found; where it was skipped, why.
        limit: what was allowed.
        verdict: ``ok``, ``failed`` or ``skipped``.
        remedy: the way out of a failure.
        seconds: that it took.
    """

    name: str
    figure: str
    limit: str
    verdict: Verdict
    remedy: str
    seconds: float


def carry_out(name: str, look: Callable[[], Finding]) -> Check:
    """Carry out a check; whatever it raises is its own failure and nobody else's.

    >>> check = carry_out("division", lambda: Finding(str(1 / 0)))
    >>> check.verdict, check.figure
    ('failed', 'ZeroDivisionError: division by zero')
    """
    started = time.perf_counter()
    try:
        found = look()
        figure, limit, remedy = found.figure, found.limit, "" if found.ok else found.remedy
        verdict: Verdict = "ok" if found.ok else "failed"
    except Skipped as why:
        figure, limit, verdict, remedy = str(why), "", "skipped", ""
    except Exception as error:
        said = " ".join(printable(str(error)).split())[:300]  # all lines: a report wants what CUDA adds below the first
        figure, limit, verdict = f"{type(error).__name__}: {said}".rstrip(": "), "no error", "failed"
        remedy = "report it, with the line below the table"
    return Check(name, figure, limit, verdict, remedy, time.perf_counter() - started)

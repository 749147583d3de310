"""Before a command takes long: what it would cost, and whether that is wanted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rlvr_lite.errors import UserError

if TYPE_CHECKING:
    from rlvr_lite.study import Estimate

__all__ = ["consent", "refuse_card"]

_HOURS = 1.0


def consent(left: Estimate, yes: bool) -> None:
    """Ask before what takes more than an hour, or want ``--yes`` where nobody can be asked.

    Raises:
        UserError: it was not given.
    """
    if yes or left.hours <= _HOURS:
        return
    if not sys.stdin.isatty():
        raise UserError(f"to do: {left.line}; add --yes to start it, or --dry to see it part by part")
    print(f"To do: {left.line}.")
    if input("Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("not started; --yes starts it without asking")


def refuse_card(gpu: str | None, dry: bool) -> None:
    """A card is named for an estimate alone.

    Raises:
        UserError: it is named without one.
    """
    if gpu is not None and not dry:
        raise UserError("--gpu names the card that hours are given for: add --dry, which trains nothing")

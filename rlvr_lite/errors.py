"""Errors that a user can act on: one line each, naming the fix."""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "UserError",
    "as_html",
    "as_written",
    "did_you_mean",
    "first_line",
    "kind_and_line",
    "printable",
    "unknown_name",
]

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_]?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]")

_HEADING = "Error(s) in loading"


def printable(text: str) -> str:
    r"""Text from outside as it may be shown: no terminal escapes, no other control characters but tab and newline.

    >>> printable("\x1b[31mred\x1b[2J and\x00 plain")
    'red and plain'
    """
    plain = _CONTROLS.sub("", _ESCAPES.sub("", text))
    return plain.encode("utf-8", "backslashreplace").decode("utf-8")  # halves of surrogate pairs


def first_line(error: BaseException) -> str:
    r"""Of what an error says, without PyTorch's heading over what does not fit; or its name.

    >>> first_line(ValueError("one:\ntwo")), first_line(KeyboardInterrupt())
    ('one', 'KeyboardInterrupt')
    >>> first_line(RuntimeError("Error(s) in loading state_dict for Linear:\n\tsize mismatch for weight"))
    'size mismatch for weight'
    """
    said = (line.strip().rstrip(" :") for line in str(error).splitlines() if _HEADING not in line)
    return next(filter(None, said), type(error).__name__)


def kind_and_line(error: BaseException) -> str:
    r"""The type of an error and its first line; the type alone where it says nothing.

    >>> kind_and_line(ValueError("one\ntwo")), kind_and_line(KeyboardInterrupt())
    ('ValueError: one', 'KeyboardInterrupt')
    """
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"


def as_html(text: str) -> str:
    r"""Text from outside as HTML that shows it and does nothing else.

    >>> as_html("<b>\x1b[2J")
    '&lt;b&gt;'
    """
    return html.escape(printable(text))


class UserError(Exception):
    """A request that cannot be carried out as asked; the message is one line and says what to do instead.

    The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(printable(message).split()))


@contextmanager
def as_written(path: Path, fix: str = "copy it again or make it anew") -> Iterator[None]:
    """What was written to ``path`` is read inside; where it is not what is ever written there, one line says so.

    Args:
        path: of the file or folder, for the message.
        fix: what to do then.

    Raises:
        UserError: keys are missing, or values are of other types.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        said = kind_and_line(error)[:120]
        raise UserError(f"{path} is damaged, it does not hold what is written there ({said}): {fix}") from error


def did_you_mean(
    typed: str,
    known: Mapping[str, str],
    spelt: Callable[[str], str] = repr,
    *,
    likeness: float = 0.6,
    most: int = 3,
) -> str:
    """A question that offers the names nearest to one that nobody knows; empty where none is near.

    Args:
        typed: the unknown one.
        known: what may have been meant, by how it is compared.
        spelt: how a name is written.
        likeness: from 0 to 1, which a near one has at least.
        most: names that are compared at the end.

    >>> did_you_mean("lorra", {"lora": "lora", "dora": "dora", "full": "full"})
    "did you mean 'lora' or 'dora'?"
    """
    close = difflib.get_close_matches(typed, known, n=most, cutoff=likeness)
    near = dict.fromkeys(known[name] for name in close)
    return f"did you mean {' or '.join(map(spelt, near))}?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name nobody registered, offering the nearest known ones.

    >>> print(unknown_name("method", "lorra", ["lora", "dora", "full"]))
    unknown method 'lorra': did you mean 'lora' or 'dora'?
    >>> print(unknown_name("method", "LoRA", ["lora", "full"]))
    unknown method 'LoRA': did you mean 'lora'?
    >>> print(unknown_name("method", "xyz", ["lora", "full"]))
    unknown method 'xyz': choose one of full, lora
    """
    known = sorted(set(known))
    meant = did_you_mean(name.casefold(), {word.casefold(): word for word in known})
    return UserError(f"unknown {kind} {name!r}: {meant or 'choose one of ' + ', '.join(known)}")

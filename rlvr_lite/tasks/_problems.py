"""From rows to problems: which column asks, which holds the gold, and what cannot be a prompt."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_lite.errors import UserError
from rlvr_lite.rewards import unreadable_golds
from rlvr_lite.tasks._gold import gold_of
from rlvr_lite.tasks._read import Rows
from rlvr_lite.tasks._task import Message, Problem

__all__ = ["problems_of", "require_answers"]

_ASKS = ("problem", "question", "prompt")
_ROLES = ("system", "developer", "user", "assistant", "tool")


def problems_of(
    rows: Rows,
    name: str,
    *,
    prefix: str,
    problem: str | None = None,
    answer: str | None = None,
    digits: int = 5,
    ids: bool = True,
) -> list[Problem]:
    """Rows as problems; of rows with the same prompt, the first is kept.

    Args:
        rows: with a prompt column (``problem``, ``question`` or ``prompt``; a text or a chat, of which a chat goes
            first) and, where something compares with golds, an ``answer`` column.
        name: the source, for messages.
        prefix: of the ids of rows without one.
        problem: the prompt column, if it is called otherwise.
        answer: the answer column, if it is called otherwise.
        digits: of the numbers in made-up ids.
        ids: take the ``id`` column where there is one.

    Raises:
        UserError: no prompt column, rows of two kinds, a prompt that is empty or no chat, an id twice, a number that
            is not finite as answer, or an answer column that was named and is not there.
    """
    asks = _prompt_column(rows[0], problem, name)
    gold_column = answer or "answer"
    if answer is not None and not any(answer in row for row in rows):
        raise _no_column(rows[0], answer, "answer", name)
    chats = not isinstance(rows[0].get(asks), str)
    found: dict[str, Problem] = {}
    seen: dict[str, int] = {}
    other: list[int] = []
    for number, row in enumerate(rows, start=1):
        where = f"{name}, row {number}"
        value = row.get(asks)
        prompt = _prompt(value, asks, where, row)
        if isinstance(prompt, str) == chats:
            kinds = ("a chat", "text") if chats else ("text", "a chat")
            raise UserError(f"{where}: {asks} is {kinds[1]}, in row 1 it is {kinds[0]}: write all rows alike")
        raw = row.get(gold_column)
        if isinstance(raw, float) and not math.isfinite(raw):
            raise UserError(f"{where}: {gold_column} is {raw}, which is no answer: mend or delete the row")
        id = _id(row.get("id"), where) if ids else None
        id = f"{prefix}-{number - 1:0{digits}d}" if id is None else id
        if id in seen:
            raise UserError(f"{where} has the id {id!r} of row {seen[id]}: give each row its own")
        seen[id] = number
        made = Problem(id, prompt, gold_of(raw)[0], row)
        first = found.setdefault(made.text, made)
        if first.answer != made.answer:
            other.append(number)
    if other:
        warnings.warn(
            f"{name} asks the same with another answer in {len(other)} rows, such as row {other[0]}: the first of each "
            "is kept",
            stacklevel=3,
        )
    return list(found.values())


def require_answers(problems: Sequence[Problem], name: str, answer: str | None = None) -> None:
    """Refuse problems without a gold where one is to be compared with, and golds of which the verifier reads none.

    Args:
        problems: that are to be graded.
        name: the source, for the message.
        answer: the answer column, if it is called otherwise.

    Raises:
        UserError: some have none, or none can be read; says how many, the first three, and why.
    """
    missing = [problem for problem in problems if problem.answer is None]
    if not missing:
        _require_a_readable_gold([problem.answer for problem in problems if problem.answer is not None], name)
        return
    column = answer or "answer"
    columns = missing[0].columns
    if column not in columns:
        has = ", ".join(columns) or "none"
        why = f"there is no {column} column, only {has}"
    else:
        why = f"{column} {gold_of(columns[column])[1]}"
    shown = ", ".join(problem.id for problem in missing[:3]) + (", ..." if len(missing) > 3 else "")
    raise UserError(
        f"{name}: {len(missing)} of {len(problems)} problems have no answer to compare with ({shown}; {why}): fill it in, "
        "name its column with the task option answer, or use a reward of your own instead of accuracy"
    )


def _require_a_readable_gold(golds: Sequence[str], name: str) -> None:
    """A few are a matter of the preflight check; where all are prose, no answer is ever judged."""
    if not golds or len(unreadable_golds(golds[:3])) < len(set(golds[:3])):
        return
    unread = unreadable_golds(golds)
    if len(unread) == len(set(golds)):
        first = "; ".join(repr(gold[:40]) for gold in unread[:3])
        raise UserError(
            f"{name}: none of {len(golds)} golds can be read as an answer ({first}): give final answers, or use a reward of "
            "your own instead of accuracy"
        )


def _prompt_column(row: Mapping[str, Any], given: str | None, name: str) -> str:
    if given is not None:
        if given not in row:
            raise _no_column(row, given, "problem", name)
        return given
    known = [column for column in _ASKS if column in row]
    if not known:
        raise _no_column(row, " or ".join(_ASKS), "problem", name)
    return next(
        (column for column in known if isinstance(row[column], Sequence) and not isinstance(row[column], str)), known[0]
    )


def _no_column(row: Mapping[str, Any], wanted: str, option: str, name: str) -> UserError:
    return UserError(
        f"{name} has no {wanted} column, only {', '.join(row) or 'none'}: rename one, or name it with the task option "
        f"{option}"
    )


def _prompt(value: Any, column: str, where: str, row: Mapping[str, Any]) -> str | tuple[Message, ...]:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UserError(
            f"{where}: {column} is empty; fill it in or delete the row (it has {', '.join(row) or 'nothing'})"
        )
    if isinstance(value, str):
        _whole(value, column, where)
        return value.strip()
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise UserError(f"{where}: {column} is a {type(value).__name__}, not text or a chat; mend or delete the row")
    if not value:
        raise UserError(f"{where}: {column} is empty; fill it in or delete the row")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
            raise UserError(
                f"{where}: {column} is no chat: each turn has a role ({', '.join(_ROLES)}) and a content; mend the row"
            )
        # a data set gives every turn the keys of all others, with None for what it lacks
        kept = {str(key): part for key, part in turn.items() if part is not None}
        content = kept.get("content")
        if not isinstance(content, str) and not _text_parts(content) and "tool_calls" not in kept:
            raise UserError(
                f"{where}: the content of a turn in {column} is a {type(content).__name__}, not text; mend it"
            )
        if isinstance(content, str):
            _whole(content, column, where)
        turns.append(kept)
    last = turns[-1]
    if last["role"] not in ("user", "assistant"):
        raise UserError(
            f"{where}: {column} ends in a {last['role']}'s message: end with the user's, or with an opening of the "
            "assistant's that is to be continued"
        )
    if not last.get("content"):
        raise UserError(f"{where}: {column} is empty in its last turn; fill it in or delete the row")
    return tuple(turns)


def _text_parts(content: Any) -> bool:
    """Whether a content is a list of texts, as multimodal templates write it."""
    return isinstance(content, list | tuple) and all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    )


def _whole(text: str, column: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: {column} holds half a character (a lone surrogate): mend or delete it") from error


def _id(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{where}: id is a {type(value).__name__}, not text or a number; mend it")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

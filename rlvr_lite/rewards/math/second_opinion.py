"""A second opinion on a run's verdicts: another reader, and numeric evaluation at random points.

The verifier proves equality exactly, on the tree of its own reader. The audit reads both texts with math-verify's parser
(ANTLR grammar, latex2sympy2_extended) and evaluates what comes out at random real points. The two share no code, so an
error in either shows as a disagreement. The audit is a list for a person to read, not a correction: math-verify's reader
is known to misread some notations (bases, capital letters, units).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rlvr_lite.errors import UserError
from rlvr_lite.rewards.functions import text_of
from rlvr_lite.rewards.math.exact import decimal
from rlvr_lite.rewards.math.notation import fold
from rlvr_lite.rewards.math.verifier import verify_batch
from rlvr_lite.rewards.math.workers import ask
from rlvr_lite.table import Table

__all__ = ["audit", "second_opinion"]

_POINTS = 5
_CLOSE = 1e-9
_E_NOTATION = re.compile(r"(?<![A-Za-z0-9.])(\d+\.?\d*|\.\d+)[eE]([+-]?\d+)(?![A-Za-z0-9.])")
_COLUMNS = ("gold", "answer", "verdict", "second opinion", "how", "times", "reason")


def audit(rollouts: Iterable[Mapping[str, Any]]) -> Table:
    r"""The verdicts that a second opinion disagrees with, most frequent first.

    Args:
        rollouts: rows such as those of ``rollouts.jsonl``: ``answer`` (or ``gold``), ``completion``, and, if a verdict is
            on record, ``correct`` or ``rewards["accuracy"]``; without one the completion is verified now.

    Returns:
        A table with one row a disputed pair of gold and answer. Its note says how many pairs were looked at, and on how
        many there was no second opinion (notation that one of the readers does not know).

    Raises:
        UserError: a row has no gold or no completion.
    """
    rows = list(rollouts)
    for number, row in enumerate(rows, start=1):
        if row.get("answer", row.get("gold")) is None or "completion" not in row:
            raise UserError(f"rollout {number} has no answer or no completion: audit needs both columns")
    golds = [str(row.get("answer", row.get("gold"))) for row in rows]
    verdicts = verify_batch(golds, [text_of(row["completion"]) for row in rows])
    found: dict[tuple[str, str, bool | None], list[Any]] = {}
    for row, gold, verdict in zip(rows, golds, verdicts, strict=True):
        if verdict.extracted is not None:
            key = (gold, verdict.extracted, _recorded(row, verdict.correct))
            found.setdefault(key, [verdict, 0])[1] += 1
    pairs = [(gold, answer) for gold, answer, _ in found]
    opinions = _opinions(pairs, [verdict.how == "text" for verdict, _ in found.values()])
    disputed = [
        {
            "gold": gold,
            "answer": answer,
            "verdict": _word(correct),
            "second opinion": _word(opinion),
            "how": verdict.how,
            "times": times,
            "reason": verdict.reason,
        }
        for ((gold, answer, correct), (verdict, times)), opinion in zip(found.items(), opinions, strict=True)
        if opinion is not None and opinion != correct
    ]
    disputed.sort(key=lambda row: -row["times"])
    silent = sum(opinion is None for opinion in opinions)
    note = f"{len(rows):,} completions, {len(pairs):,} pairs of gold and answer, {silent:,} without a second opinion"
    return Table(_COLUMNS, tuple(disputed), title=f"{len(disputed)} disputed verdicts", note=note)


def _recorded(row: Mapping[str, Any], computed: bool | None) -> bool | None:
    if isinstance(row.get("correct"), bool):
        return row["correct"]
    rewards = row.get("rewards")
    recorded = rewards.get("accuracy") if isinstance(rewards, Mapping) else None
    return recorded == 1 if isinstance(recorded, int | float) else computed


def _word(correct: bool | None) -> str:
    return "not judged" if correct is None else "correct" if correct else "wrong"


def _opinions(pairs: list[tuple[str, str]], words: list[bool]) -> list[bool | None]:
    """One opinion a pair: plain numbers here, the rest in the workers; none on words."""
    opinions: list[bool | None] = []
    hard = []
    for i, (gold, answer) in enumerate(pairs):
        if decimal(gold) and decimal(answer):
            a, b = (float(text.replace(",", "")) for text in (gold, answer))
            opinions.append(math.isclose(a, b, rel_tol=_CLOSE) if math.isfinite(a) and math.isfinite(b) else None)
        else:
            opinions.append(None)
            if not words[i]:
                hard.append(i)
    for i, (opinion, *_) in zip(hard, ask(second_opinion, [pairs[i] for i in hard]), strict=True) if hard else ():
        opinions[i] = opinion
    return opinions


def second_opinion(pair: tuple[str, str]) -> tuple[bool | None, str]:
    """Whether gold and answer agree at random points, as math-verify reads them (runs in a worker)."""
    left, right = (_parsed(text) for text in pair)
    if left is None or right is None:
        return None, "cannot be read"
    a, b = _values(left, right), _values(right, left)
    if a is None or b is None:
        return None, "cannot be evaluated"
    return len(a) == len(b) and all(map(_near, a, b)), "evaluated at random points"


def _parsed(text: str) -> Any:
    from math_verify import parse, parser

    parser.TIMEOUT_WARNING_SHOWN = True  # the limits are kept by the worker
    clean = _E_NOTATION.sub(r"\1 \\times 10^{\2}", fold(text))
    found = parse(f"\\boxed{{{clean}}}", parsing_timeout=None)
    return next((item for item in found if not isinstance(item, str)), None)


def _near(a: complex, b: complex) -> bool:
    return abs(a - b) <= _CLOSE * max(1.0, abs(a), abs(b))


def _values(of: Any, other: Any) -> list[complex] | None:
    """The values of an expression at random points of the variables of both; of a collection, one after another."""
    import sympy

    parts = _parts(of)
    if parts is None:
        return None
    draw = random.Random(0)
    symbols = sorted(of.free_symbols | other.free_symbols, key=str)
    values: list[complex] = []
    for _ in range(_POINTS if symbols else 1):
        point = {symbol: sympy.Float(draw.uniform(1.1, 2.9), 30) for symbol in symbols}
        row = []
        for part in parts:
            number = part.subs(point).evalf(30) if hasattr(part, "subs") else part
            if not getattr(number, "is_number", False) or not number.is_finite:
                return None
            row.append(complex(number))
        values += sorted(row, key=lambda z: (round(z.real, 6), z.imag)) if isinstance(of, sympy.Set) else row
    return values


def _parts(of: Any) -> list[Any] | None:
    import sympy

    if isinstance(of, sympy.MatrixBase):
        return list(of.flat())
    if isinstance(of, sympy.Eq):
        return [of.rhs]
    if isinstance(of, sympy.Interval):
        ends = [of.start, of.end, sympy.Integer(int(bool(of.left_open))), sympy.Integer(int(bool(of.right_open)))]
        return [sympy.Integer(10**6) * sympy.sign(end) if end.is_infinite else end for end in ends]
    if isinstance(of, sympy.FiniteSet | sympy.Tuple):
        inner = [_parts(arg) for arg in of.args]
        return [part for parts in inner if parts for part in parts] if all(inner) else None
    return [of] if isinstance(of, sympy.Expr) else None

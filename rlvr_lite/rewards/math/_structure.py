r"""What an answer is: a value, a list, a tuple, an interval or union, an equation, a matrix, words.

:func:`read` takes the text apart at its outermost commas, relations, set operations and brackets and leaves the
expressions between them to :mod:`~rlvr_lite.rewards.math._grammar`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from rlvr_lite.rewards.math._grammar import expression
from rlvr_lite.rewards.math._lexer import Token, lex
from rlvr_lite.rewards.math._nodes import (
    DEGREES,
    PERCENT,
    Equation,
    Inequality,
    Interval,
    Items,
    Matrix,
    Named,
    Reading,
    SetOperation,
    Unit,
    Unreadable,
    Value,
    mul,
    negate,
    num,
)
from rlvr_lite.rewards.math._notation import fold
from rlvr_lite.rewards.math._words import KNOWN, magnitude, unit_of

__all__ = ["read"]


Tokens: TypeAlias = Sequence[Token]

_OPEN = frozenset(["(", "[", "{", "{{", "lfloor", "lceil"])
_CLOSE = frozenset([")", "]", "}", "}}", "rfloor", "rceil"])
_ORDER = frozenset(["<", ">", "<=", ">=", "!="])
_MATRICES = frozenset(["matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"])
_LEADS = frozenset(
    ["answer", "the answer is", "answer is", "the final answer is", "final answer", "ans", "total", "is", "exactly"]
)
_DEPTH = 6
_MODULUS = re.compile(
    r"(?:\\pmod\s*(?:\{\s*(\d{1,9})\s*\}|(\d))|\(\s*(?:\\(?:text|mathrm|operatorname)\s*\{\s*)?\\?b?mod\s*\}?\s*(\d{1,9})\s*\))\s*$"
)
_TRANSPOSED = re.compile(r"[(\[]([^()\[\]]*,[^()\[\]]*)[)\]] ?\^ ?\{? ?(?:T|\\top) ?\}?")
_BARE_MODULUS = re.compile(r"\\?b?mod\s*()()(\d{1,9})\s*$")


@lru_cache(maxsize=512)
def read(text: str) -> Reading | Unreadable:
    r"""What the text is; an :class:`Unreadable` (returned, not raised, so that it is cached) if it is no mathematics.

    >>> read(r"(3,4]")
    Interval(low=Node(op='num', args=(Fraction(3, 1),)), high=Node(op='num', args=(Fraction(4, 1),)), brackets='(]')
    """
    try:
        folded = _TRANSPOSED.sub(r"(\1)", fold(text))
        modulus = _MODULUS.search(folded) or ("=" in folded.replace("\\equiv", "=") and _BARE_MODULUS.search(folded))
        tokens = lex(folded[: modulus.start()] if modulus else folded)
        while tokens and tokens[-1] in ((("op", ",")), ("op", ";")):
            tokens.pop()
        if not tokens:
            raise Unreadable("nothing is there")
        found = _list(tokens, 0)
        return _residue(found, next(filter(None, modulus.groups()))) if modulus else found
    except Unreadable as error:
        return Unreadable(*error.args)
    except (RecursionError, OverflowError, ZeroDivisionError, ValueError) as error:
        return Unreadable(f"{type(error).__name__} while reading")


def _residue(reading: Reading, modulus: str) -> Reading:
    """A value with its modulus as a unit."""
    last = reading.sides[-1] if isinstance(reading, Equation) else reading
    if not isinstance(last, Value) or last.unit:
        raise Unreadable("a modulus after something that is no number")
    value = Value(last.node, ((f"mod {int(modulus)}", 1),))
    return Equation((*reading.sides[:-1], value)) if isinstance(reading, Equation) else value


def _split(tokens: Tokens, at: Callable[[Token], bool]) -> tuple[list[Tokens], list[Token]]:
    """The stretches between the outermost tokens that ``at`` picks, and those tokens."""
    parts: list[Tokens] = []
    cuts: list[Token] = []
    depth = start = 0
    for i, token in enumerate(tokens):
        if token.kind == "op":
            depth += (token.value in _OPEN) - (token.value in _CLOSE)
        depth += (token.kind == "begin") - (token.kind == "end")
        if depth == 0 and at(token):
            parts.append(tokens[start:i])
            cuts.append(token)
            start = i + 1
    if depth:
        raise Unreadable("a bracket without its partner")
    parts.append(tokens[start:])
    return parts, cuts


def _spans(tokens: Tokens) -> bool:
    """Whether the first bracket closes with the last token."""
    depth = 0
    for i, token in enumerate(tokens):
        if token.kind == "op":
            depth += (token.value in _OPEN) - (token.value in _CLOSE)
        if depth == 0:
            return 0 < i == len(tokens) - 1
    return False


def _bare(tokens: Tokens) -> Tokens:
    """Without the braces that span all of it."""
    for _ in range(40):
        if not (tokens and tokens[0] == ("op", "{") and _spans(tokens)):
            break
        tokens = tokens[1:-1]
    return tokens


def _list(tokens: Tokens, depth: int) -> Reading:
    if depth > _DEPTH:
        raise Unreadable("nested too deeply")
    tokens = _bare(tokens)
    lists = {("op", ","), ("op", ";"), ("op", "=")}.issubset(tokens)  # p = 5, q = 2; p = 7, q = 3
    commas = [("op", ";")] if lists else [("op", ","), ("op", ";")]
    parts, cuts = _split(tokens, lambda t: t.kind == "sep" or t in commas)
    if lists and cuts:
        return Items("list", tuple(_list(part, depth + 1) for part in parts))
    joiner = next((cut.value for cut in cuts if cut.kind == "sep"), ",")
    parts = [part for part in parts if part] if joiner != "," else parts
    if not parts:
        raise Unreadable("nothing between the separators")
    items = [reading for part in parts for reading in _branches(part, depth)]
    return items[0] if len(items) == 1 else Items("list", tuple(items), joiner=joiner)


def _branches(tokens: Tokens, depth: int) -> list[Reading]:
    r"""The readings of an item: two where it holds a ``\pm``."""
    if not any(token.kind == "op" and token.value in ("pm", "mp") for token in tokens):
        return [_item(tokens, depth, 1)]
    both = [_item(tokens, depth, sign) for sign in (1, -1)]
    return both if both[0] != both[1] else both[:1]


def _item(tokens: Tokens, depth: int, sign: int) -> Reading:
    if not tokens:
        raise Unreadable("nothing between two commas")
    tokens = _bare(tokens)
    sides, relations = _split(tokens, lambda t: t.kind == "op" and (t.value in _ORDER or t.value in ("=", "in")))
    if relations:
        return _relation(sides, [token.value for token in relations], depth, sign)
    exact, roundings = _split(tokens, lambda t: t == ("op", "approx"))
    if roundings:
        return _approximated(exact, depth, sign)
    parts, operations = _split(tokens, lambda t: t.kind == "op" and t.value in ("cup", "cap", "minus"))
    if operations:
        reading = _item(parts[0], depth + 1, sign)
        for operation, part in zip(operations, parts[1:], strict=True):
            reading = SetOperation(operation.value, reading, _item(part, depth + 1, sign))
        return reading
    if any(token.kind == "begin" for token in tokens):
        return _matrix(tokens, sign)
    if len(tokens) == 1 and (tokens[0].kind == "set" or tokens[0] == ("op", "empty")):
        return Named("empty" if tokens[0].kind == "op" else tokens[0].value)
    if _spans(tokens) and tokens[0].value in ("(", "[", "{{"):
        return _bracketed(tokens, depth, sign)
    if len(tokens) > 3 and tokens[0].kind == "let" and _spans(tokens[1:]):
        brackets = tokens[1].value + tokens[-1].value
        if brackets in ("(]", "[)"):  # a variable before a half-open interval can only be its label
            return _bracketed(tokens[1:], depth, sign)
    return _value(tokens, sign)


def _bracketed(tokens: Tokens, depth: int, sign: int) -> Reading:
    brackets, inside = tokens[0].value[0] + tokens[-1].value[0], tokens[1:-1]
    if not inside:
        if brackets == "{}":
            return Named("empty")
        raise Unreadable("empty brackets")
    if brackets == "{}":
        clauses, _ = _split(inside, lambda t: t.kind == "op" and t.value in ("mid", "|", ":"))
        if len(clauses) == 2:
            return _list(clauses[1], depth + 1)
    parts, cuts = _split(inside, lambda t: t in (("op", ","), ("op", ";")))
    if brackets == "{}":
        return Items("set", tuple(r for part in parts for r in _branches(part, depth + 1)))
    if not cuts:
        if brackets in ("()", "[]"):
            return _list(inside, depth + 1) if brackets == "()" else _value(inside, sign)
        raise Unreadable("an interval with one end")
    items = tuple(_item(part, depth + 1, sign) for part in parts)
    if len(items) == 2 and brackets != "()":
        low, high = items
        if isinstance(low, Value) and isinstance(high, Value):
            return Interval(low.node, high.node, brackets)
    if brackets not in ("()", "[]"):
        raise Unreadable(f"brackets {brackets} around something that is no interval")
    return Items("tuple", items, brackets)


def _relation(sides: list[Tokens], ops: list[str], depth: int, sign: int) -> Reading:
    if "in" in ops:
        if len(ops) != 1:
            raise Unreadable("membership inside another relation")
        return _list(sides[1], depth + 1)
    if any(op in _ORDER for op in ops):
        if "=" in ops:
            raise Unreadable("an equation inside an inequality")
        return Inequality(tuple(ops), tuple(_value(side, sign).node for side in sides))
    if all(len(side) == 1 and side[0].kind == "run" and side[0].value.isupper() for side in sides):
        return Named(" = ".join(sorted(side[0].value for side in sides)))
    labels = [side for side in sides if len(side) == 1 and side[0].kind == "text" and len(side[0].value) > 1]
    rest = [side for side in sides if not any(side is label for label in labels)]
    if labels and len(rest) == 1:
        return _item(rest[0], depth + 1, sign)
    return Equation(tuple(_item(side, depth + 1, sign) for side in rest))


def _approximated(sides: list[Tokens], depth: int, sign: int) -> Reading:
    """``A ≈ B`` means A, where that is a value; where it is empty or only names the quantity, it means B."""
    if not sides[0]:
        return _item(sides[1], depth + 1, sign)
    first = _item(sides[0], depth + 1, sign)
    named = isinstance(first, Value) and first.node.op in ("sym", "call")
    return Equation((first, _item(sides[1], depth + 1, sign))) if named else first


def _matrix(tokens: Tokens, sign: int) -> Matrix:
    begin = next(i for i, token in enumerate(tokens) if token.kind == "begin")
    end = next((i for i, token in enumerate(tokens) if token.kind == "end"), -1)
    if tokens[begin].value not in _MATRICES or end < begin:
        raise Unreadable(f"the environment {tokens[begin].value}")
    before, body, after = list(tokens[:begin]), list(tokens[begin + 1 : end]), list(tokens[end + 1 :])
    if before and after and before[-1].kind == after[0].kind == "op":
        if (before[-1].value, after[0].value) not in (("(", ")"), ("[", "]")):
            raise Unreadable("a matrix between other brackets")
        before, after = before[:-1], after[1:]
    if before and before[-1] == ("op", "*"):
        before.pop()
    if after:
        raise Unreadable("something after a matrix")
    if tokens[begin].value == "array" and body and body[0] == ("op", "{"):
        body = body[body.index(Token("op", "}")) + 1 :]
    while body and body[-1] == ("op", "row"):
        body.pop()
    rows, _ = _split(body, lambda t: t == ("op", "row"))
    factor = expression(before, sign) if before and before != [("op", "-")] else num(-1 if before else 1)
    entries = []
    for row in rows:
        cells, _ = _split(row, lambda t: t == ("op", "&"))
        nodes = [expression(cell, sign) for cell in cells]
        entries.append(tuple(node if factor == num(1) else mul(factor, node) for node in nodes))
    if len({len(row) for row in entries}) != 1:
        raise Unreadable("rows of different length")
    return Matrix(tuple(entries))


def _value(tokens: Tokens, sign: int) -> Value:
    """An expression with its unit, currency or lead-in."""
    tokens = list(tokens)
    unit: Unit | None = None
    minus = len(tokens) > 1 and tokens[0] == ("op", "-") and tokens[1].kind == "unit"
    if minus:
        tokens = tokens[1:]
    if tokens and tokens[0].kind == "text" and len(tokens) > 1 and tokens[0].value.lower().rstrip(":") in _LEADS:
        tokens = tokens[1:]
        tokens = tokens[1:] if tokens and tokens[0] == ("op", ":") else tokens
    for edge in (0, -1):
        if len(tokens) > 1 and tokens[edge].kind == "unit":
            unit = ((tokens.pop(edge).value, 1),)
    head, tail = _unit_tail(tokens)
    scale, tail = magnitude(tail)
    if tail and tail[0].value.lower() in ("percent", "per cent", "percentage"):
        head, tail, unit = head, tail[1:], PERCENT
    elif len(head) > 1 and head[-1] == ("op", "%") and head.count(Token("op", "%")) == 1:
        head, unit = head[:-1], PERCENT
    if tail:
        unit = unit_of(tail) if unit is None else tuple(sorted({*unit, *unit_of(tail)}))
    node = expression(head, sign)
    digits = [token for token in head if token != ("op", "-")]
    if len(digits) == 1 and digits[0].kind == "num" and scale == 1 and "e" not in digits[0].value.lower():
        places = None if "(" in digits[0].value else len(digits[0].value.partition(".")[2])
        return Value(negate(node) if minus else node, unit, places)
    if scale != 1:
        node = mul(num(scale), node)
    if node.op == "deg" or (node.op == "mul" and node.args[0] == num(-1) and node.args[1].op == "deg"):
        inner = node.args[0] if node.op == "deg" else negate(node.args[1].args[0])
        return Value(inner, DEGREES)
    return Value(negate(node) if minus else node, unit)


def _unit_tail(tokens: list[Token]) -> tuple[list[Token], Tokens]:
    """Where the value ends and words or unit symbols begin."""
    depth = 0
    for i, token in enumerate(tokens):
        if token.kind == "op":
            depth += (token.value in _OPEN) - (token.value in _CLOSE)
        starts = token.kind == "text" or (
            token.kind == "run"
            and (token.value in KNOWN or (len(token.value) > 3 and not token.value.isupper()))
            and tokens[0].kind == "num"
            and (tokens[i - 1].kind == "num" or tokens[i - 1].value in (")", "}", "%"))
        )
        if i and depth == 0 and starts and tokens[i - 1] not in (("op", "_"), ("op", "^"), ("op", "+"), ("op", "-")):
            return tokens[:i], tokens[i:]
    return tokens, []

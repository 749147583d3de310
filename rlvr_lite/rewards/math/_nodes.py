"""What the reader makes and everything else works on: expression trees and answers, safe to hash and to pickle."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "DEGREES", "INFINITY", "MINUS_INFINITY", "MINUS_ONE", "ONE", "PERCENT", "PI", "E", "Equation", "I", "Inequality",
    "Interval", "Items", "Matrix", "Named", "Node", "Reading", "SetOperation", "Unit", "Unreadable", "Value", "add",
    "divide", "fn", "free_symbols", "mul", "negate", "num", "power", "rational", "sym",
]  # fmt: skip


class Unreadable(Exception):
    """The text is not mathematics that the reader knows."""


class Node(NamedTuple):
    """An operator and its operands.

    ``num`` (Fraction,) · ``sym`` (name,) · ``const`` ("pi" | "e" | "i" | "inf",) · ``add``, ``mul`` (nodes...) ·
    ``pow`` (base, exponent) · ``deg`` (degrees,) · ``fn`` (name, nodes...) · ``call`` (name, nodes...), an unknown
    function.
    """

    op: str
    args: tuple[Any, ...]


def num(value: int | Fraction) -> Node:
    """A rational number."""
    return Node("num", (Fraction(value),))


def sym(name: str) -> Node:
    """A variable."""
    return Node("sym", (name,))


def add(*nodes: Node) -> Node:
    """A sum."""
    return nodes[0] if len(nodes) == 1 else Node("add", nodes)


def mul(*nodes: Node) -> Node:
    """A product."""
    return nodes[0] if len(nodes) == 1 else Node("mul", nodes)


def power(base: Node, exponent: Node) -> Node:
    """A power."""
    return Node("pow", (base, exponent))


def fn(name: str, *nodes: Node) -> Node:
    """A known function."""
    return Node("fn", (name, *nodes))


def negate(node: Node) -> Node:
    """The negative."""
    return Node("num", (-node.args[0],)) if node.op == "num" else mul(MINUS_ONE, node)


def divide(left: Node, right: Node) -> Node:
    """A quotient; of two numbers, a number."""
    if left.op == "num" and right.op == "num" and right.args[0]:
        return Node("num", (left.args[0] / right.args[0],))
    return mul(left, power(right, MINUS_ONE))


ONE = num(1)
MINUS_ONE = num(-1)
PI = Node("const", ("pi",))
E = Node("const", ("e",))
I = Node("const", ("i",))  # noqa: E741
INFINITY = Node("const", ("inf",))
MINUS_INFINITY = mul(MINUS_ONE, INFINITY)


def free_symbols(node: Node) -> frozenset[str]:
    """Names of the variables (an unknown function counts as one)."""
    if node.op == "sym":
        return frozenset(node.args)
    found: frozenset[str] = frozenset()
    for arg in node.args:
        if isinstance(arg, Node):
            found |= free_symbols(arg)
    return found | {node.args[0]} if node.op == "call" else found


def rational(digits: str) -> Node:
    """The value of digits as the lexer leaves them: ``12``, ``.5``, ``4.5e33``, ``0.1(6)``.

    >>> rational("0.1(6)")
    Node(op='num', args=(Fraction(1, 6),))

    Raises:
        Unreadable: the exponent has more than 20 digits.
    """
    digits, _, repeating = digits.partition("(")
    mantissa, _, exponent = digits.lower().partition("e")
    value = Fraction(mantissa.rstrip(".") or "0")
    if repeating:
        block = repeating.rstrip(")")
        places = len(mantissa.partition(".")[2])
        value += Fraction(int(block), (10 ** len(block) - 1) * 10**places)
    if not exponent:
        return num(value)
    if len(exponent) > 20:
        raise Unreadable("an exponent of more than 20 digits")
    shift = int(exponent)
    if abs(shift) > 300:
        return mul(num(value), power(num(10), num(shift)))
    return num(value * Fraction(10) ** shift)


Unit: TypeAlias = tuple[tuple[str, int], ...]
"""Names with exponents, sorted; empty for a unit that says nothing, such as "units"."""

DEGREES: Unit = (("deg", 1),)
PERCENT: Unit = (("percent", 1),)


@dataclass(frozen=True, slots=True)
class Value:
    """One expression, with the unit written after it (``None`` if there is none).

    ``places`` counts the digits after the point of a plain numeral; ``None`` for anything else.
    """

    node: Node
    unit: Unit | None = None
    places: int | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """Several readings. ``kind``: "list" (bare commas, any order), "set" (braces), "tuple" (brackets, in order)."""

    kind: str
    items: tuple[Reading, ...]
    brackets: str = ""
    joiner: str = ","


@dataclass(frozen=True, slots=True)
class Interval:
    """A real interval; ``brackets`` such as ``(]`` say which ends belong to it."""

    low: Node
    high: Node
    brackets: str


@dataclass(frozen=True, slots=True)
class SetOperation:
    """``op``: "cup", "cap" or "minus"."""

    op: str
    left: Reading
    right: Reading


@dataclass(frozen=True, slots=True)
class Equation:
    """Two or more sides that are said to be equal."""

    sides: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Inequality:
    """``sides[0] ops[0] sides[1] ...``."""

    ops: tuple[str, ...]
    sides: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Named:
    """Something known by its name: "empty", "R", or words."""

    name: str


Reading: TypeAlias = Value | Items | Interval | SetOperation | Equation | Inequality | Matrix | Named

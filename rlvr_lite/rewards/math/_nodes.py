"""The expression tree that the reader makes and everything else works on: plain tuples, safe to hash and to pickle."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

__all__ = [
    "INFINITY",
    "MINUS_INFINITY",
    "MINUS_ONE",
    "ONE",
    "PI",
    "E",
    "I",
    "Node",
    "Unreadable",
    "add",
    "divide",
    "fn",
    "free_symbols",
    "mul",
    "negate",
    "num",
    "power",
    "sym",
]


class Unreadable(Exception):
    """The text is not mathematics that the reader knows."""


class Node(NamedTuple):
    """An operator and its operands.

    ``num`` (Fraction,) · ``sym`` (name,) · ``const`` ("pi" | "e" | "i" | "inf",) · ``add``, ``mul`` (nodes...) ·
    ``pow`` (base, exponent) · ``deg`` (degrees,) · ``fn`` (name, nodes...) · ``call`` (name, nodes...), an unknown
    function · ``big`` (kind, body, variable, from, to), a sum, product, integral or limit.
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
    if node.op == "call":
        return found | {node.args[0]}
    if node.op == "big":
        return found - free_symbols(node.args[2])
    return found

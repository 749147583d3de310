r"""Sets of real numbers made of intervals and points, compared by where they hold.

Both sets are cut at every end point that occurs in either, in order; they are equal if they agree on each end point and
on each open stretch between two of them. So :math:`(-\infty,2)\cup(3,\infty)` equals :math:`\mathbb{R}\setminus[2,3]`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

from rlvr_lite.rewards.math._algebra import ONE, Normaliser
from rlvr_lite.rewards.math._exact import TooLarge, Undefined
from rlvr_lite.rewards.math._nodes import (
    INFINITY,
    MINUS_INFINITY,
    Inequality,
    Interval,
    Items,
    Named,
    Node,
    Reading,
    SetOperation,
    Unreadable,
    Value,
    add,
    free_symbols,
    negate,
    num,
)
from rlvr_lite.rewards.math._numeric import evaluate
from rlvr_lite.rewards.math._scalars import DIFFERENT, Outcome, all_of, same

__all__ = ["FLIPPED", "same_region", "solved"]

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
"""A relation read from right to left."""


def solved(reading: Reading) -> Reading:
    """Inequalities that bound one quantity, or are linear in one variable, as the sets they describe; all else as it is."""
    match reading:
        case Items():
            return replace(reading, items=tuple(map(solved, reading.items)))
        case SetOperation(op, left, right):
            return SetOperation(op, solved(left), solved(right))
        case Inequality((op,), (left, right)):
            return _half_line(left, op, right) or reading
        case Inequality((first, second), (low, Node("sym" | "call"), high)) if {first[0], second[0]} in ({"<"}, {">"}):
            if first[0] == ">":
                low, high, first, second = high, low, second, first
            return Interval(low, high, ("[" if "=" in first else "(") + ("]" if "=" in second else ")"))
    return reading


def _half_line(left: Node, op: str, right: Node) -> Reading | None:
    if left.op not in ("sym", "call") and right.op in ("sym", "call"):
        left, op, right = right, FLIPPED[op], left
    if left.op in ("sym", "call") and not free_symbols(left) & free_symbols(right):
        end = right
    else:
        difference = add(left, negate(right))
        names = free_symbols(difference)
        try:
            form = Normaliser().form(difference)
        except (TooLarge, Undefined):
            return None
        slopes = {monomial: c for monomial, c in form.top.items() if monomial}
        if len(names) != 1 or form.bottom != ONE or list(slopes) != [((*names, Fraction(1)),)]:
            return None
        (slope,) = slopes.values()
        end, op = num(-form.top.get((), Fraction(0)) / slope), op if slope > 0 else FLIPPED[op]
    if op == "!=":
        return SetOperation("minus", Named("R"), Items("set", (Value(end),)))
    if op[0] == "<":
        return Interval(MINUS_INFINITY, end, "(]" if "=" in op else "()")
    return Interval(end, INFINITY, "[)" if "=" in op else "()")


def same_region(gold: Reading, answer: Reading) -> Outcome:
    """Whether two regions are equal; single intervals may have ends with variables in them."""
    if isinstance(gold, Value) or isinstance(answer, Value):
        return DIFFERENT
    first, second = _interval(gold), _interval(answer)
    if first and second:
        if first.brackets != second.brackets:
            return Outcome(False, "structure", "an end of the interval is open in one and closed in the other")
        return all_of([same(first.low, second.low), same(first.high, second.high)])
    try:
        cuts, unproved = _cuts(_ends(gold) + _ends(answer))
        if _members(gold, cuts) != _members(answer, cuts):
            return Outcome(False, "structure", "a different set of numbers")
    except (Unreadable, ArithmeticError, ValueError):
        return DIFFERENT
    return all_of(unproved)


def _interval(reading: Reading) -> Interval | None:
    match reading:
        case Interval():
            return reading
        case Items("tuple", (Value(low), Value(high)), "()"):
            return Interval(low, high, "()")
    return None


def _ends(reading: Reading) -> list[Node]:
    match _interval(reading) or reading:
        case Value(node):
            return [node]
        case Named("R" | "empty"):
            return []
        case Interval(low, high):
            return [low, high]
        case Items("set", items) if all(isinstance(item, Value) for item in items):
            return [end for item in items for end in _ends(item)]
        case Items("list", items) if not any(isinstance(item, Value) for item in items):
            return [end for item in items for end in _ends(item)]
        case SetOperation(_, left, right):
            return _ends(left) + _ends(right)
    raise Unreadable("no set of numbers")


def _real(node: Node) -> float:
    if node in (INFINITY, MINUS_INFINITY):
        return math.inf if node == INFINITY else -math.inf
    if free_symbols(node):
        raise Unreadable("an end point with a variable in it")
    value, _ = evaluate(node)
    if abs(value.imag) > 1e-9:
        raise Unreadable("an end point that is not real")
    return float(value.real)


def _cuts(ends: list[Node]) -> tuple[dict[Node, int], list[Outcome]]:
    """Each end point's place in their order, equal ones sharing it; and the equalities that are still to be proved."""
    if len(ends) > 60:
        raise Unreadable("too many end points")
    ordered = sorted({MINUS_INFINITY: None, INFINITY: None, **dict.fromkeys(ends)}, key=_real)
    places: dict[Node, int] = {ordered[0]: 0}
    unproved = []
    for before, node in itertools.pairwise(ordered):
        outcome = same(before, node) if math.isclose(_real(before), _real(node), rel_tol=1e-9) else DIFFERENT
        places[node] = places[before] + (outcome.equal is False)
        if outcome.equal is None:
            unproved.append(outcome)
    return places, unproved


def _members(reading: Reading, places: dict[Node, int]) -> set[int]:
    """Where the region holds: ``2 p`` for the end point at place p, ``2 p + 1`` for the stretch after it."""
    match _interval(reading) or reading:
        case Value(node):
            return {2 * places[node]}
        case Named("R"):
            return set(range(1, 2 * max(places.values())))
        case Named():
            return set()
        case Interval(low, high, brackets):
            start, stop = 2 * places[low], 2 * places[high]
            inside = set(range(start + 1, stop))
            return inside | ({start} if brackets[0] == "[" else set()) | ({stop} if brackets[1] == "]" else set())
        case Items(kind, items, joiner=joiner):
            parts = [_members(item, places) for item in items]
            if kind == "set" or joiner == "or":
                return set().union(*parts)
            both = set.intersection(*parts)
            return both if joiner == "and" or both else set().union(*parts)
        case SetOperation(op, left, right):
            a, b = _members(left, places), _members(right, places)
            return a | b if op == "cup" else a & b if op == "cap" else a - b
        case _:
            raise Unreadable("no set of numbers")

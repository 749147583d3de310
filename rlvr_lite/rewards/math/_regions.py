r"""Sets of real numbers made of intervals and points, compared by where they hold.

Both sets are cut at every end point that occurs in either, in order; they are equal if they agree on each end point and
on each open stretch between two of them. So :math:`(-\infty,2)\cup(3,\infty)` equals :math:`\mathbb{R}\setminus[2,3]`.
"""

from __future__ import annotations

import itertools
import math

from rlvr_lite.rewards.math._nodes import INFINITY, MINUS_INFINITY, Node, Unreadable, free_symbols
from rlvr_lite.rewards.math._numeric import evaluate
from rlvr_lite.rewards.math._readings import Interval, Items, Named, Reading, SetOperation, Value
from rlvr_lite.rewards.math._scalars import DIFFERENT, Outcome, all_of, same

__all__ = ["is_region", "same_region"]

_CUTS = 60


def is_region(reading: Reading) -> bool:
    """Whether this is a set of real numbers (a finite set of numbers counts)."""
    match reading:
        case Interval():
            return True
        case Named(name):
            return name in ("R", "empty")
        case SetOperation(_, left, right):
            return is_region(left) and is_region(right)
        case Items("tuple", items, "()"):
            return len(items) == 2 and all(isinstance(item, Value) for item in items)
        case Items("set", items):
            return all(isinstance(item, Value) for item in items)
        case Items("list", items):
            return all(is_region(item) for item in items)
        case _:
            return False


def same_region(gold: Reading, answer: Reading) -> Outcome:
    """Whether two regions are equal; single intervals may have ends with variables in them."""
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
    if isinstance(reading, Items) and reading.kind == "tuple":
        low, high = (item.node for item in reading.items if isinstance(item, Value))
        return Interval(low, high, "()")
    return reading if isinstance(reading, Interval) else None


def _ends(reading: Reading) -> list[Node]:
    match reading:
        case Value(node):
            return [node]
        case Items(_, items):
            return [end for item in items for end in _ends(item)]
        case Interval(low, high):
            return [low, high]
        case SetOperation(_, left, right):
            return _ends(left) + _ends(right)
        case _:
            return []


def _real(node: Node) -> float:
    if node in (INFINITY, MINUS_INFINITY):
        return math.inf if node == INFINITY else -math.inf
    if free_symbols(node):
        raise Unreadable("an end point with a variable in it")
    value, _ = evaluate(node, 0)
    if abs(value.imag) > 1e-9 or not math.isfinite(value.real):
        raise Unreadable("an end point that is not real")
    return value.real


def _cuts(ends: list[Node]) -> tuple[dict[Node, int], list[Outcome]]:
    """Each end point's place in their order, equal ones sharing it; and the equalities that are still to be proved."""
    if len(ends) > _CUTS:
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
    last = 2 * max(places.values())
    match reading:
        case Value(node):
            return {2 * places[node]}
        case Named("R"):
            return set(range(1, last))
        case Named():
            return set()
        case Interval(low, high, brackets):
            start, stop = 2 * places[low], 2 * places[high]
            inside = set(range(start + 1, stop))
            return inside | ({start} if brackets[0] == "[" else set()) | ({stop} if brackets[1] == "]" else set())
        case Items("tuple", items):
            ends = [places[item.node] for item in items if isinstance(item, Value)]
            return set(range(2 * ends[0] + 1, 2 * ends[1]))
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

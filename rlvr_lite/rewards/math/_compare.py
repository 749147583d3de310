"""Answers compared by what they are, element by element, label by label, unit by unit, as :mod:`rlvr_lite.rewards` says."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from rlvr_lite.rewards.math._algebra import Form, Normaliser, proportional
from rlvr_lite.rewards.math._exact import TooLarge, Undefined
from rlvr_lite.rewards.math._labels import label_of, may_label, rest_of, spelled, symbols_of
from rlvr_lite.rewards.math._lexer import AXES
from rlvr_lite.rewards.math._nodes import (
    DEGREES,
    PERCENT,
    PI,
    Equation,
    Inequality,
    Interval,
    Items,
    Matrix,
    Named,
    Node,
    Reading,
    SetOperation,
    Unreadable,
    Value,
    add,
    free_symbols,
    mul,
    negate,
    num,
    sym,
)
from rlvr_lite.rewards.math._numeric import near
from rlvr_lite.rewards.math._regions import FLIPPED, same_region, solved
from rlvr_lite.rewards.math._scalars import DIFFERENT, EQUAL, Outcome, all_of, any_of, same

__all__ = ["compare"]


def compare(gold: Reading, answer: Reading) -> Outcome:
    """Whether the answer is the gold."""
    if gold == answer:
        return EQUAL
    gold, answer = _as_tuple(solved(gold)), _as_tuple(solved(answer))
    if isinstance(gold, Items) and gold.joiner == "or" and all(compare(gold.items[0], i).equal for i in gold.items[1:]):
        gold = gold.items[0]  # one value in several forms
    match gold, answer:
        case Value(), Value():
            return _values(gold, answer)
        case Matrix(), Matrix():
            return _in_order(_rows(gold), _rows(answer))
        case Matrix(rows), Items("tuple", items) if len(rows[0]) == 1:
            return _in_order([Value(row[0]) for row in rows], items)
        case Items("tuple", items), Matrix(rows) if len(rows[0]) == 1:
            return _in_order(items, [Value(row[0]) for row in rows])
        case Inequality(), Inequality():
            return _inequalities(gold, answer)
        case Named(), Named():
            return DIFFERENT
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        lists = all(isinstance(reading, Items) and reading.kind != "tuple" for reading in (gold, answer))
        return _collections(gold, answer) if lists else _equations(gold, answer)
    if _needs_region(gold) or _needs_region(answer):
        return same_region(gold, answer)
    if isinstance(gold, Items) or isinstance(answer, Items):
        return _collections(gold, answer)
    return DIFFERENT


def _needs_region(reading: Reading) -> bool:
    if isinstance(reading, Items) and reading.kind == "list":
        return any(isinstance(item, Interval | SetOperation) for item in reading.items)
    return isinstance(reading, Interval | SetOperation) or (
        isinstance(reading, Named) and reading.name in ("R", "empty")
    )


def _values(gold: Value, answer: Value) -> Outcome:
    if gold.unit and answer.unit:
        if gold.unit != answer.unit and {gold.unit, answer.unit} not in _TEMPERATURES:
            return Outcome(False, "structure", f"{_spell(answer)} contradicts {_spell(gold)}")
        return _residues(gold, answer) or same(gold.node, answer.node)
    small = gold.node.op == "num" and abs(gold.node.args[0]) <= 1
    if answer.unit == PERCENT and small:  # a bare gold up to 1 is no percentage
        return same(gold.node, mul(answer.node, _HUNDREDTH))
    plain = _rounded(gold, answer) or same(gold.node, _constant_renamed(gold.node, answer.node))
    if plain.equal is True:
        return plain
    if gold.unit == PERCENT:
        return any_of([plain, same(mul(gold.node, _HUNDREDTH), answer.node)])
    if DEGREES in (gold.unit, answer.unit):  # the sign is left out, or it is meant as a factor
        left, right = (mul(v.node, _DEGREE) if v.unit == DEGREES else v.node for v in (gold, answer))
        return any_of([plain, same(left, right)])
    return plain


_HUNDREDTH, _DEGREE = num(Fraction(1, 100)), mul(PI, num(Fraction(1, 180)))
_TEMPERATURES = ({DEGREES, (("degC", 1),)}, {DEGREES, (("degF", 1),)})


def _residues(gold: Value, answer: Value) -> Outcome | None:
    """Numbers up to the modulus that both name."""
    name = gold.unit[0][0] if gold.unit else ""
    if not (name.startswith("mod ") and gold.node.op == answer.node.op == "num"):
        return None
    equal = (gold.node.args[0] - answer.node.args[0]) % int(name[4:]) == 0
    return Outcome(equal, "number", "" if equal else "another residue")


def _rounded(gold: Value, answer: Value) -> Outcome | None:
    """An exact value (no decimal) that rounds to the gold in the digits that are printed there, two places or three digits."""
    if not gold.places or answer.places is not None or gold.node.op != "num" or free_symbols(answer.node):
        return None
    value = gold.node.args[0]
    digits = len(str(int(abs(value) * 10**gold.places)))
    if digits < 2 or (digits < 3 and gold.places < 2):
        return None
    unit = Fraction(1, 10**gold.places)
    with contextlib.suppress(ArithmeticError, ValueError, Unreadable):
        if near(answer.node, value, unit / 2):
            return Outcome(True, "numeric", "it rounds to the gold")
    return None


def _constant_renamed(gold: Node, answer: Node) -> Node:
    """The constant of integration of the answer under the gold's name: ``+ c`` for ``+ C``."""
    if gold.op != "add" or answer.op != "add":
        return answer
    mine, other = (next((name for name in _CONSTANTS if sym(name) in node.args), "") for node in (gold, answer))
    if not (mine and other) or (mine != "C" and len(free_symbols(gold)) > 2):
        return answer
    rests = [[term for term in node.args if term not in (sym(mine), sym(other))] for node in (gold, answer)]
    used = frozenset().union(*(free_symbols(term) for rest in rests for term in rest))
    fits = not {mine, other} & used and all(
        len(node.args) == len(r) + 1 for node, r in zip((gold, answer), rests, strict=True)
    )
    return add(*rests[1], sym(mine)) if fits and rests[1] else answer


_CONSTANTS = ("C", "c", "K", "k", "C_1", "c_1")


def _spell(value: Value) -> str:
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in value.unit or ())


def _in_order(gold: Sequence[Reading], answer: Sequence[Reading]) -> Outcome:
    if len(gold) != len(answer):
        return Outcome(False, "structure", f"{len(answer)} elements instead of {len(gold)}")
    return replace(all_of([compare(g, a) for g, a in zip(gold, answer, strict=True)]), how="structure")


def _any_order(gold: Sequence[Reading], answer: Sequence[Reading]) -> Outcome:
    """Each element of the gold finds one of the answer (equality is transitive, so the first that fits will do)."""
    if len(gold) != len(answer):
        return Outcome(False, "structure", f"{len(answer)} elements instead of {len(gold)}")
    left = list(answer)
    found: list[Outcome] = []
    for element in gold:
        outcomes = [compare(element, other) for other in left]
        best = any_of(outcomes)
        if best.equal is False:
            return Outcome(False, "structure", "an element of the gold is missing")
        left.pop(next(i for i, outcome in enumerate(outcomes) if outcome is best))
        found.append(best)
    return replace(all_of(found), how="structure")


def _rows(matrix: Matrix) -> list[Reading]:
    return [Items("tuple", tuple(map(Value, row))) for row in matrix.rows]


def _collections(gold: Reading, answer: Reading) -> Outcome:
    """Lists, sets and tuples against each other, or one of them against a single element."""
    if not (isinstance(gold, Items) and isinstance(answer, Items)):
        many, one = (gold, answer) if isinstance(gold, Items) else (answer, gold)
        assert isinstance(many, Items)
        if many is answer and many.joiner == "or":  # "1/2 or 0.5"
            return replace(all_of([compare(one, item) for item in many.items]), how="structure")
        if many.kind == "tuple" or len(many.items) != 1:
            return Outcome(False, "structure", f"{len(many.items)} elements against one")
        return compare(many.items[0], one)
    kinds = {gold.kind, answer.kind}
    named = [_by_name(gold), _by_name(answer)]
    if any(named) and not all(named) and "set" not in kinds:  # names against places
        return _in_order(gold.items, named[1] or answer.items)
    if kinds == {"set"}:
        return _any_order(_distinct(gold.items), _distinct(answer.items))
    if "tuple" not in kinds:
        return _any_order(_labelled(gold.items), _labelled(answer.items))
    if "set" in kinds:
        single, other = (gold, answer) if gold.kind == "set" else (answer, gold)
        return compare(single.items[0], other) if len(single.items) == 1 else DIFFERENT
    if kinds == {"tuple"} and len(gold.items) == 2 and gold.brackets != answer.brackets:
        return Outcome(False, "structure", "other brackets")
    return _in_order(gold.items, answer.items)


def _by_name(items: Items) -> list[Reading]:
    """``y = 2, x = 3`` in the order of its names, if every element has one of its own; else nothing."""
    labels = [label_of(item) if isinstance(item, Equation) else None for item in items.items]
    names = [spelled(label) for label in labels if label is not None]
    if len(names) != len(items.items) or len(set(names)) != len(names):
        return []
    if all(len(name) == 1 for name in names):
        return [item for _, item in sorted(zip(names, items.items, strict=True), key=lambda pair: pair[0])]
    return list(items.items)


def _distinct(items: Sequence[Reading]) -> list[Reading]:
    kept: list[Reading] = []
    for item in items:
        if not any(compare(item, other).equal for other in kept):
            kept.append(item)
    return kept


def _labelled(items: Sequence[Reading]) -> list[Reading]:
    """``x = 1, 2`` means ``x = 1, x = 2``."""
    first = items[0]
    if isinstance(first, Equation) and len(items) > 1 and not any(isinstance(item, Equation) for item in items[1:]):
        return [first, *(Equation((first.sides[0], item)) for item in items[1:])]
    return list(items)


def _equations(gold: Reading, answer: Reading) -> Outcome:
    if isinstance(gold, Equation) and isinstance(answer, Equation):
        labels = [label_of(equation) for equation in (gold, answer)]
        if labels[0] and labels[1]:
            values = _chain(rest_of(gold), rest_of(answer))
            if _same_label(labels[0], labels[1]):
                return values
            if values.equal:
                return Outcome(False, "structure", "another quantity is on the left")
        return _up_to_a_factor(gold, answer)
    return _against_label(gold, answer)


def _against_label(gold: Reading, answer: Reading) -> Outcome:
    """An equation against something else: its sides but the label have to be equal to that."""
    if isinstance(gold, Equation):
        return _chain(rest_of(gold), (answer,)) if label_of(gold) is not None else DIFFERENT
    assert isinstance(answer, Equation)
    symbols = symbols_of(gold)
    sides = [side for side in answer.sides if not may_label(side, symbols)]
    if not sides:
        return Outcome(False, "structure", "an equation instead of a value")
    return _chain((gold,), sides)


def _same_label(gold: Reading, answer: Reading) -> bool:
    """Whether two labels name the same; a function's argument may have any name."""
    match gold, answer:
        case Value(Node("sym" | "call", (one, *_))), Value(Node("sym" | "call", (other, *_))):
            return bool(one == other)
    return compare(gold, answer).equal is True


def _chain(gold: Sequence[Reading], answer: Sequence[Reading]) -> Outcome:
    """``... = a = b``: every member of the answer has to equal the gold's last."""
    return all_of([compare(gold[-1], side) for side in answer])


def _ratio(gold: Sequence[Node], answer: Sequence[Node]) -> Fraction | None:
    """The factor between two relations of two sides each, with everything brought to the left."""
    normaliser = Normaliser()
    try:
        left, right = (normaliser.form(add(sides[0], negate(sides[1]))) for sides in (gold, answer))
        return proportional(Form(left.top), Form(right.top), normaliser)
    except (TooLarge, Undefined):
        return None


def _up_to_a_factor(gold: Equation, answer: Equation) -> Outcome:
    """``y = 2x + 3`` and ``2x - y + 3 = 0``; of other sides, the same in one order or the other."""
    match gold.sides, answer.sides:
        case (Value(a), Value(b)), (Value(c), Value(d)):
            return DIFFERENT if _ratio((a, b), (c, d)) is None else EQUAL
        case (_, _), (first, second):
            return any_of([_in_order(gold.sides, (first, second)), _in_order(gold.sides, (second, first))])
    return DIFFERENT


def _inequalities(gold: Inequality, answer: Inequality) -> Outcome:
    """Two sides: the same up to a positive factor. More: side by side."""
    if len(gold.sides) == len(answer.sides) == 2:
        factor = _ratio(gold.sides, answer.sides)
        equal = factor is not None and answer.ops[0] == (gold.ops[0] if factor > 0 else FLIPPED[gold.ops[0]])
        return EQUAL if equal else DIFFERENT
    sides, ops = answer.sides, answer.ops
    if ops != gold.ops:
        sides, ops = sides[::-1], tuple(FLIPPED[op] for op in reversed(ops))
    return _in_order([*map(Value, gold.sides)], [*map(Value, sides)]) if ops == gold.ops else DIFFERENT


def _as_tuple(reading: Reading) -> Reading:
    """A sum of multiples of unit vectors as the tuple of its coordinates."""
    if not isinstance(reading, Value) or not (names := free_symbols(reading.node) & set(AXES)):
        return reading
    try:
        terms = Normaliser().form(reading.node).top
    except (TooLarge, Undefined):
        return reading
    if any(sum(exponent for atom, exponent in monomial if atom in AXES) != 1 for monomial in terms):
        return reading
    axes = AXES if "axisk" in names else AXES[:2]
    return Items("tuple", tuple(Value(_coordinate(reading.node, axis)) for axis in axes), "()")


def _coordinate(node: Node, axis: str) -> Node:
    if node.op == "sym" and node.args[0] in AXES:
        return num(int(node.args[0] == axis))
    if node.op in ("add", "mul"):
        return Node(node.op, tuple(_coordinate(arg, axis) for arg in node.args))
    return node

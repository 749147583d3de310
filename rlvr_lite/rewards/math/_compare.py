"""Answers compared by what they are: element by element, label by label, unit by unit.

The rules, from the policy of the verifier:

* the order of a list or set of solutions does not matter, that of a tuple or matrix does; how often a value occurs in a
  list matters; several candidates for one value are wrong;
* a label (``x =``), unit, degree or currency sign may be there or not, but must not contradict the gold's;
* the ends of an interval belong to it or not; an inequality in one variable is the interval it describes;
* an equation equals its nonzero multiples.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rlvr_lite.rewards.math._algebra import Form, Normaliser, proportional
from rlvr_lite.rewards.math._exact import TooLarge, Undefined
from rlvr_lite.rewards.math._forms import ONE
from rlvr_lite.rewards.math._labels import label_of, may_label, rest_of, spelled, symbols_of
from rlvr_lite.rewards.math._lexer import AXES
from rlvr_lite.rewards.math._nodes import (
    INFINITY,
    MINUS_INFINITY,
    PI,
    Node,
    Unreadable,
    add,
    free_symbols,
    mul,
    negate,
    num,
    sym,
)
from rlvr_lite.rewards.math._numeric import evaluate
from rlvr_lite.rewards.math._readings import (
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
    Value,
)
from rlvr_lite.rewards.math._regions import is_region, same_region
from rlvr_lite.rewards.math._scalars import DIFFERENT, EQUAL, Outcome, all_of, any_of, same

__all__ = ["compare"]


def compare(gold: Reading, answer: Reading) -> Outcome:
    """Whether the answer is the gold."""
    if gold == answer:
        return EQUAL
    gold, answer = _as_tuple(gold), _as_tuple(answer)
    if isinstance(gold, Items) and gold.joiner == "or" and all(compare(gold.items[0], i).equal for i in gold.items[1:]):
        gold = gold.items[0]  # one value in several forms
    if isinstance(gold, Inequality) or isinstance(answer, Inequality):
        gold, answer = _solved(gold), _solved(answer)
    match gold, answer:
        case Value(), Value():
            return _values(gold, answer)
        case Matrix(), Matrix():
            return _matrices(gold, answer)
        case Matrix(rows), Items("tuple", items) if all(len(row) == 1 for row in rows):
            return _in_order([Value(row[0]) for row in rows], items)
        case Items("tuple", items), Matrix(rows) if all(len(row) == 1 for row in rows):
            return _in_order(items, [Value(row[0]) for row in rows])
        case Inequality(), Inequality():
            return _inequalities(gold, answer)
        case Named(), Named():
            return DIFFERENT
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        if _is_list(gold) and _is_list(answer):
            return _collections(gold, answer)
        return _equations(gold, answer)
    if _needs_region(gold) or _needs_region(answer):
        return same_region(gold, answer) if is_region(gold) and is_region(answer) else DIFFERENT
    if isinstance(gold, Items) or isinstance(answer, Items):
        return _collections(gold, answer)
    return DIFFERENT


def _is_list(reading: Reading) -> bool:
    return isinstance(reading, Items) and reading.kind != "tuple"


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
    if answer.unit == PERCENT and _small(gold.node):  # a bare gold up to 1 is no percentage
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


def _small(node: Node) -> bool:
    return node.op == "num" and abs(node.args[0]) <= 1


def _residues(gold: Value, answer: Value) -> Outcome | None:
    """Numbers up to the modulus that both name."""
    name = gold.unit[0][0] if gold.unit else ""
    if name.startswith("mod ") and gold.node.op == answer.node.op == "num":
        difference = gold.node.args[0] - answer.node.args[0]
        equal = difference % int(name[4:]) == 0
        return Outcome(equal, "number", "" if equal else "another residue")
    return None


def _rounded(gold: Value, answer: Value) -> Outcome | None:
    """An exact value (no decimal) that rounds to the gold in the digits that are printed there, two places or three digits."""
    if not gold.places or answer.places is not None or gold.node.op != "num" or free_symbols(answer.node):
        return None
    value = gold.node.args[0]
    digits = len(str(int(abs(value) * 10**gold.places)))
    if digits < 2 or (digits < 3 and gold.places < 2):
        return None
    try:
        found, error = evaluate(answer.node, 0)
    except (ArithmeticError, ValueError, Unreadable):
        return None
    unit = max(Fraction(1, 10**gold.places), abs(value) / 2**50)  # no more digits than a double has
    near = abs(found.imag) <= error and abs(Fraction(found.real) - value) <= unit / 2 + Fraction(error)
    return Outcome(True, "numeric", "it rounds to the gold") if near else None


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
    return _structured(all_of([compare(g, a) for g, a in zip(gold, answer, strict=True)]))


def _structured(outcome: Outcome) -> Outcome:
    return Outcome(outcome.equal, "structure", outcome.reason, outcome.pairs)


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
    return _structured(all_of(found))


def _matrices(gold: Matrix, answer: Matrix) -> Outcome:
    shapes = [(len(matrix.rows), len(matrix.rows[0])) for matrix in (gold, answer)]
    if shapes[0] != shapes[1]:
        return Outcome(
            False, "structure", f"a {shapes[1][0]} x {shapes[1][1]} matrix, not {shapes[0][0]} x {shapes[0][1]}"
        )
    entries = [[Value(entry) for row in matrix.rows for entry in row] for matrix in (gold, answer)]
    return _in_order(*entries)


def _collections(gold: Reading, answer: Reading) -> Outcome:
    """Lists, sets and tuples against each other, or one of them against a single element."""
    if not (isinstance(gold, Items) and isinstance(answer, Items)):
        many, one = (gold, answer) if isinstance(gold, Items) else (answer, gold)
        assert isinstance(many, Items)
        if many is answer and many.joiner == "or":  # "1/2 or 0.5"
            return _structured(all_of([compare(one, item) for item in many.items]))
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
        return any_of([_as_implicit(gold, answer), *_swapped(gold, answer)])
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


def _differences(equation: Equation) -> Node | None:
    """Left side minus right side."""
    if len(equation.sides) != 2:
        return None
    left, right = equation.sides
    if not (isinstance(left, Value) and isinstance(right, Value)):
        return None
    return add(left.node, negate(right.node))


def _ratio(gold: Node, answer: Node) -> Fraction | None:
    normaliser = Normaliser()
    try:
        left, right = normaliser.form(gold), normaliser.form(answer)
        return proportional(Form(left.top), Form(right.top), normaliser)
    except (TooLarge, Undefined):
        return None


def _as_implicit(gold: Equation, answer: Equation) -> Outcome:
    """The same equation up to a factor, such as ``y = 2x + 3`` and ``2x - y + 3 = 0``."""
    left, right = _differences(gold), _differences(answer)
    if left is None or right is None:
        return DIFFERENT
    if _ratio(left, right) is not None:
        return Outcome(True, "structure")
    return Outcome(False, "structure", "another equation")


def _swapped(gold: Equation, answer: Equation) -> list[Outcome]:
    if len(gold.sides) != len(answer.sides) or len(gold.sides) != 2:
        return []
    return [_in_order(gold.sides, answer.sides), _in_order(gold.sides, answer.sides[::-1])]


def _inequalities(gold: Inequality, answer: Inequality) -> Outcome:
    """Two sides: the same up to a positive factor. More: side by side."""
    flip = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
    if len(gold.sides) == len(answer.sides) == 2:
        factor = _ratio(*(add(sides[0], negate(sides[1])) for sides in (gold.sides, answer.sides)))
        if factor is not None and answer.ops[0] == (gold.ops[0] if factor > 0 else flip[gold.ops[0]]):
            return Outcome(True, "structure")
        return Outcome(False, "structure", "another inequality")
    for sides, ops in (
        (answer.sides, answer.ops),
        (answer.sides[::-1], tuple(flip[op] for op in reversed(answer.ops))),
    ):
        if ops == gold.ops:
            return _in_order([Value(side) for side in gold.sides], [Value(side) for side in sides])
    return DIFFERENT


def _solved(reading: Reading) -> Reading:
    """A linear inequality in one variable as the interval that it describes; anything else as it is."""
    if not isinstance(reading, Inequality) or len(reading.sides) != 2 or reading.ops[0] == "!=":
        return reading
    difference = add(reading.sides[0], negate(reading.sides[1]))
    names = free_symbols(difference)
    try:
        form = Normaliser().form(difference)
    except (TooLarge, Undefined):
        return reading
    powers = {monomial: c for monomial, c in form.top.items() if monomial}
    if len(names) != 1 or form.bottom != ONE or list(powers) != [((*names, Fraction(1)),)]:
        return reading
    (slope,) = powers.values()
    end = num(-form.top.get((), Fraction(0)) / slope)
    below = (reading.ops[0] in ("<", "<=")) == (slope > 0)
    closed = reading.ops[0] in ("<=", ">=")
    if below:
        return Interval(MINUS_INFINITY, end, "(" + ("]" if closed else ")"))
    return Interval(end, INFINITY, ("[" if closed else "(") + ")")


def _as_tuple(reading: Reading) -> Reading:
    """A sum of multiples of unit vectors as the tuple of its coordinates."""
    if not isinstance(reading, Value) or not (names := free_symbols(reading.node) & set(AXES)):
        return reading
    if reading.node.op not in ("add", "mul", "sym") or _raised(reading.node):
        return reading
    axes = AXES if "axisk" in names else AXES[:2]
    return Items("tuple", tuple(Value(_coordinate(reading.node, axis)) for axis in axes), "()")


def _raised(node: Node) -> bool:
    """Whether a unit vector stands anywhere but in a product or sum."""
    if node.op in ("add", "mul", "sym"):
        inside = [arg for arg in node.args if isinstance(arg, Node)]
        several = node.op == "mul" and sum(bool(free_symbols(arg) & set(AXES)) for arg in inside) > 1
        return several or any(map(_raised, inside))
    return bool(free_symbols(node) & set(AXES))


def _coordinate(node: Node, axis: str) -> Node:
    if node.op == "sym" and node.args[0] in AXES:
        return num(int(node.args[0] == axis))
    if node.op in ("add", "mul"):
        return Node(node.op, tuple(_coordinate(arg, axis) for arg in node.args))
    return node

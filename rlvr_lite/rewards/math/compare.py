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

from rlvr_lite.rewards.math.algebra import Form, Normaliser, proportional
from rlvr_lite.rewards.math.exact import TooLarge, Undefined
from rlvr_lite.rewards.math.nodes import PI, Node, add, free_symbols, mul, negate, num
from rlvr_lite.rewards.math.regions import is_region, same_region
from rlvr_lite.rewards.math.scalars import DIFFERENT, EQUAL, Outcome, all_of, any_of, same
from rlvr_lite.rewards.math.structure import (
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

__all__ = ["compare"]


def compare(gold: Reading, answer: Reading) -> Outcome:
    """Whether the answer is the gold."""
    if gold == answer:
        return EQUAL
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
    plain = same(gold.node, answer.node)
    if gold.unit and answer.unit:
        if gold.unit != answer.unit:
            return Outcome(False, "structure", f"{_spell(answer)} contradicts {_spell(gold)}")
        return plain
    for unit, factor in _FACTORS.items():  # the sign is left out, or it is meant as a factor
        if unit in (gold.unit, answer.unit):
            left, right = (mul(v.node, factor) if v.unit == unit else v.node for v in (gold, answer))
            return any_of([plain, same(left, right)]) if plain.equal is not True else plain
    return plain


_FACTORS = {DEGREES: mul(PI, num(Fraction(1, 180))), PERCENT: num(Fraction(1, 100))}


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
        labels = [_label(equation) for equation in (gold, answer)]
        if labels[0] and labels[1]:
            values = _chain(_rest(gold), _rest(answer))
            if _same_label(labels[0], labels[1]):
                return values
            if values.equal:
                return Outcome(False, "structure", "another quantity is on the left")
        return any_of([_as_implicit(gold, answer), *_swapped(gold, answer)])
    return _against_label(gold, answer)


def _against_label(gold: Reading, answer: Reading) -> Outcome:
    """An equation against something else: its sides but the label have to be equal to that."""
    if isinstance(gold, Equation):
        if _label(gold) is None:
            return DIFFERENT
        return _chain(_rest(gold), (answer,))
    assert isinstance(answer, Equation)
    symbols = _symbols(gold)
    sides = [side for side in answer.sides if not _may_label(side, symbols)]
    if not sides:
        return Outcome(False, "structure", "an equation instead of a value")
    return _chain((gold,), sides)


def _may_label(side: Reading, taken: frozenset[str]) -> bool:
    """Whether a side names the quantity asked for: ``x``, ``m + n``, ``100 m + n``, but not ``x + 3`` or ``2 x``."""
    if not _symbols(side) - taken:
        return False
    if not isinstance(side, Value):
        return True
    terms = side.node.args if side.node.op == "add" else ()
    return not _has_number(side.node) and not any(free_symbols(term) == frozenset() for term in terms)


def _has_number(node: Node) -> bool:
    return node.op == "mul" and any(not free_symbols(factor) for factor in node.args)


def _label(equation: Equation) -> Reading | None:
    r"""The side that only names the quantity, as in ``x = 5``, ``f(x) = x + 1``, ``(x, y) = (6, 5)``, ``5 = x``."""
    for side in (equation.sides[0], equation.sides[-1]):
        others = frozenset().union(*(_symbols(other) for other in equation.sides if other is not side))
        if isinstance(side, Value) and side.node.op in ("sym", "call") and _name(side) not in others:
            return side
        if isinstance(side, Items) and all(isinstance(i, Value) and i.node.op == "sym" for i in side.items):
            return side
    return None


def _name(value: Value) -> str:
    return str(value.node.args[0])


def _rest(equation: Equation) -> tuple[Reading, ...]:
    label = _label(equation)
    return tuple(side for side in equation.sides if side is not label)


def _same_label(gold: Reading, answer: Reading) -> bool:
    """Whether two labels name the same; a function's argument may have any name."""
    if isinstance(gold, Value) and isinstance(answer, Value):
        return _name(gold) == _name(answer)
    return compare(gold, answer).equal is True


def _chain(gold: Sequence[Reading], answer: Sequence[Reading]) -> Outcome:
    """``... = a = b``: every member of the answer has to equal the gold's last."""
    return all_of([compare(gold[-1], side) for side in answer])


def _symbols(reading: Reading) -> frozenset[str]:
    match reading:
        case Value(node):
            return free_symbols(node)
        case Items(_, items):
            return frozenset().union(*(_symbols(item) for item in items))
        case Equation(sides):
            return frozenset().union(*(_symbols(side) for side in sides))
        case _:
            return frozenset()


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

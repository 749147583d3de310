"""Names of quantities on a side of an equation."""

from __future__ import annotations

from rlvr_lite.rewards.math._nodes import MINUS_ONE, Equation, Items, Node, Reading, Value, free_symbols, sym

__all__ = ["label_of", "may_label", "rest_of", "spelled", "symbols_of"]


def may_label(side: Reading, taken: frozenset[str]) -> bool:
    """Whether a side names the quantity asked for.

    It does if it is a name (``x``, ``f(2)``, ``AB``, ``|z|``, ``sin A``), a ratio of names, or an expression in several
    variables without a number on its own (``m + n``, ``100 m + n``). In one variable, ``2 x``, ``2^x`` and ``x + 3``
    leave an equation to be solved.
    """
    symbols = symbols_of(side)
    if not symbols - taken:
        return False
    if not isinstance(side, Value):
        return True
    if len(symbols) == 1 or _is_name(side.node):
        return _is_name(side.node)
    if side.node.op == "mul" and any(not free_symbols(factor) and factor != MINUS_ONE for factor in side.node.args):
        return False
    terms = side.node.args if side.node.op == "add" else ()
    return not any(not free_symbols(term) and term.op != "const" for term in terms)


def _is_name(node: Node) -> bool:
    """``x``, ``f(2)``, ``AB``, ``|z|``, ``sin A``, or a ratio of such."""
    match node.op, node.args:
        case "sym" | "call", _:
            return True
        case "mul", factors:
            return all(_is_name(f) and all(name[0].isupper() for name in free_symbols(f)) for f in factors)
        case "pow", (base, exponent):
            return exponent == MINUS_ONE and _is_name(base)
        case "fn", ("abs", inside):
            return inside != sym("x") and _is_name(inside)
        case "fn", (name, Node("sym", (angle,))):
            return name in _ANGLED and (len(angle) > 1 or angle.isupper())
        case _:
            return False


_ANGLED = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])


def label_of(equation: Equation) -> Reading | None:
    r"""The side that only names the quantity, as in ``x = 5``, ``f(x) = x + 1``, ``(x, y) = (6, 5)``, ``|AB| = 1``."""
    for side in (equation.sides[0], equation.sides[-1]):
        others = frozenset().union(*(symbols_of(other) for other in equation.sides if other is not side))
        if isinstance(side, Value) and _is_name(side.node):
            single = side.node.op in ("sym", "call")  # in f(x) = x + 1 the argument occurs on both sides
            if not ({side.node.args[0]} if single else symbols_of(side)) & others:
                return side
        if isinstance(side, Items) and all(isinstance(i, Value) and i.node.op == "sym" for i in side.items):
            return side
    return None


def rest_of(equation: Equation) -> tuple[Reading, ...]:
    """The sides without the label."""
    label = label_of(equation)
    return tuple(side for side in equation.sides if side is not label)


def symbols_of(reading: Reading) -> frozenset[str]:
    """Names of its variables."""
    match reading:
        case Value(node):
            return free_symbols(node)
        case Items(_, items):
            return frozenset().union(*(symbols_of(item) for item in items))
        case Equation(sides):
            return frozenset().union(*(symbols_of(side) for side in sides))
        case _:
            return frozenset()


def spelled(label: Reading) -> str:
    """A label as a text that tells it from others."""
    return str(label.node.args[0]) if isinstance(label, Value) and label.node.op in ("sym", "call") else repr(label)

r"""Values of expressions in floating point with a bound on their error: enough to refute an equality, never to prove one.

Every operation returns a value and a bound on how far rounding can have moved it (running error analysis, Higham,
"Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.3), so cancellation widens the bound instead of
refuting what is equal. Variables take whole numbers from 2 up, where formulas in n and in x agree alike.
"""

from __future__ import annotations

import cmath
import math
import zlib
from collections.abc import Callable, Mapping
from typing import TypeAlias

from rlvr_lite.rewards.math._exact import TooLarge, meter
from rlvr_lite.rewards.math._nodes import Node, Unreadable

__all__ = ["POINTS", "Bounded", "differ", "evaluate", "point"]

Bounded: TypeAlias = tuple[complex, float]

_EPSILON = 2.0**-52
POINTS = 3
_STEPS = 60


def point(name: str, index: int) -> complex:
    """The value of a variable at sample point ``index``: a whole number in 2..9 that depends on the name only."""
    return complex(2 + (zlib.crc32(f"{name}/{index}".encode("utf-8", "surrogatepass")) >> 7) % 8)


def differ(left: Node, right: Node) -> bool | None:
    """Whether the two are proved to differ at one of the sample points; ``None`` if no point could be evaluated.

    Raises:
        TooLarge: every point is beyond the range of floats.
    """
    seen, beyond = None, 0
    for index in range(POINTS):
        try:
            (a, da), (b, db) = evaluate(left, index), evaluate(right, index)
        except OverflowError:
            beyond += 1
            continue
        except (ArithmeticError, ValueError, Unreadable):
            continue
        if not all(map(math.isfinite, (a.real, a.imag, b.real, b.imag, da, db))):
            continue
        if abs(a - b) > 4 * (da + db) + 1e-290:
            return True
        seen = False
    if beyond == POINTS:
        raise TooLarge("beyond the range of floats")
    return seen


def evaluate(node: Node, index: int, bound: Mapping[str, complex] | None = None) -> Bounded:
    """Value and error bound at sample point ``index``.

    Raises:
        ArithmeticError, ValueError: out of the floats' range, or of a function's domain.
        Unreadable: an operator that has no numeric value here.
    """
    meter.spend(1)
    match node.op:
        case "num":
            value = node.args[0]
            return complex(value.numerator / value.denominator), _EPSILON * abs(value.numerator / value.denominator)
        case "sym":
            return (bound[node.args[0]] if bound and node.args[0] in bound else point(node.args[0], index)), 0.0
        case "const":
            return _constant(node.args[0])
        case "add":
            return _sum([evaluate(arg, index, bound) for arg in node.args])
        case "mul":
            result = evaluate(node.args[0], index, bound)
            for arg in node.args[1:]:
                result = _product(result, evaluate(arg, index, bound))
            return result
        case "pow":
            return _power(evaluate(node.args[0], index, bound), evaluate(node.args[1], index, bound))
        case "deg":
            value, error = evaluate(node.args[0], index, bound)
            return _product((value, error), (complex(math.pi / 180), _EPSILON))
        case "fn":
            return _function(node.args[0], [evaluate(arg, index, bound) for arg in node.args[1:]])
        case "call":
            args = [f"{evaluate(arg, index, bound)[0]:.9g}" for arg in node.args[1:]]
            return point(f"{node.args[0]}({args})", index), 0.0
        case "big":
            if bound:
                raise Unreadable("a sum inside a sum")
            return _series(node, index)
        case _:
            raise Unreadable(node.op)


def _constant(name: str) -> Bounded:
    if name == "inf":
        raise Unreadable("infinite")
    return {"pi": (complex(math.pi), 4e-16), "e": (complex(math.e), 4e-16), "i": (1j, 0.0)}[name]


def _sum(terms: list[Bounded]) -> Bounded:
    value, error = 0j, 0.0
    for term, spread in terms:
        value += term
        error += spread + _EPSILON * abs(value)
    return value, error


def _product(left: Bounded, right: Bounded) -> Bounded:
    (a, da), (b, db) = left, right
    value = a * b
    return value, abs(a) * db + abs(b) * da + da * db + 2 * _EPSILON * abs(value)


def _power(base: Bounded, exponent: Bounded) -> Bounded:
    (a, da), (b, db) = base, exponent
    if a == 0:
        if b.real <= 0:
            raise ZeroDivisionError("a power of zero")
        if da:
            raise ValueError("a power of what may be zero")
        return 0j, 0.0
    if abs(a) <= 4 * da:
        raise ValueError("a power of what may be zero")
    value = a**b
    log = abs(cmath.log(a))
    relative = abs(b) * da / abs(a) + db * log + _EPSILON * (4 + abs(b) * (1 + log))
    if a.real < 0 and abs(a.imag) <= 4 * da and b.imag == 0 and b.real != round(b.real):
        relative = math.inf if a.imag or da > 1e-12 * abs(a) else relative  # the branch cut of the root
    return value, abs(value) * math.expm1(min(relative, 700.0)) * 2


def _root(of: Bounded, index: Bounded) -> Bounded:
    (a, da), (n, _) = of, index
    if a.imag == 0 and a.real < 0 and n.imag == 0 and round(n.real) % 2 == 1:
        value, error = _power((-a, da), (1 / n, _EPSILON / abs(n)))
        return -value, error
    return _power(of, (1 / n, _EPSILON / abs(n)))


def _real(value: Bounded) -> float:
    if value[0].imag:
        raise ValueError("a real argument is needed")
    return value[0].real


def _step(rounding: Callable[[float], int], of: Bounded) -> Bounded:
    real = _real(of)
    if rounding(real - 2 * of[1]) != rounding(real + 2 * of[1]):
        raise ValueError("too close to a jump")
    return complex(rounding(real)), 0.0


def _gamma(of: Bounded) -> Bounded:
    """Gamma(x + 1) with the derivative bounded by log growth."""
    real, error = _real(of), of[1]
    if real < 0:
        raise ValueError("a factorial of a negative number")
    value = math.gamma(real + 1)
    return complex(value), value * (error * (1 + math.log(real + 2)) + 64 * _EPSILON)


def _function(name: str, args: list[Bounded]) -> Bounded:
    (x, dx), *more = args
    if name == "root":
        return _root(args[0], more[0])
    if name == "abs":
        return complex(abs(x)), dx + _EPSILON * abs(x)
    if name in ("floor", "ceil"):
        return _step(math.floor if name == "floor" else math.ceil, args[0])
    if name == "factorial":
        return _gamma(args[0])
    if name == "binom":
        n, k = args[0], more[0]
        rest = _sum([n, (-k[0], k[1])])
        return _product(_gamma(n), _power(_product(_gamma(k), _gamma(rest)), (-1 + 0j, 0.0)))
    if name in ("max", "min"):
        pick = max if name == "max" else min
        return pick(args, key=_real)
    if name in ("gcd", "lcm"):
        whole = [round(_real(arg)) for arg in args]
        return complex(math.gcd(*whole) if name == "gcd" else math.lcm(*whole)), 0.0
    if name in _RECIPROCAL:
        return _power(_smooth(_RECIPROCAL[name], x, dx), (-1 + 0j, 0.0))
    if name in _SMOOTH:
        return _smooth(name, x, dx)
    raise Unreadable(name)


_RECIPROCAL = {"cot": "tan", "sec": "cos", "csc": "sin", "coth": "tanh"}
#: A function and the absolute value of its derivative.
_SMOOTH: Mapping[str, tuple[Callable[[complex], complex], Callable[[complex], float]]] = {
    "sin": (cmath.sin, lambda x: abs(cmath.cos(x))),
    "cos": (cmath.cos, lambda x: abs(cmath.sin(x))),
    "tan": (cmath.tan, lambda x: abs(cmath.cos(x)) ** -2),
    "arcsin": (cmath.asin, lambda x: abs(1 - x * x) ** -0.5),
    "arccos": (cmath.acos, lambda x: abs(1 - x * x) ** -0.5),
    "arctan": (cmath.atan, lambda x: 1 / abs(1 + x * x)),
    "sinh": (cmath.sinh, lambda x: abs(cmath.cosh(x))),
    "cosh": (cmath.cosh, lambda x: abs(cmath.sinh(x))),
    "tanh": (cmath.tanh, lambda x: abs(cmath.cosh(x)) ** -2),
    "ln": (cmath.log, lambda x: 1 / abs(x)),
}


def _smooth(name: str, x: complex, dx: float) -> Bounded:
    if abs(x) > 1e9 or dx > 1e-3:
        raise ValueError("too large or too coarse an argument")
    function, slope = _SMOOTH[name]
    value = function(x)
    return value, 2 * slope(x) * dx + dx * dx + 4 * _EPSILON * (abs(value) + abs(x) * slope(x)) + 1e-300


def _series(node: Node, index: int) -> Bounded:
    """A short finite sum or product, term by term.

    Raises:
        OverflowError: an integrand is beyond the range of floats at an end of its interval.
        Unreadable: a long sum, a limit, an integral.
    """
    kind, body, variable, low, high = node.args
    if kind == "int":
        for end in (low, high):
            evaluate(body, index, {variable.args[0]: evaluate(end, index)[0]})
    if kind not in ("sum", "prod"):
        raise Unreadable(kind)
    first, last = _real(evaluate(low, index)), _real(evaluate(high, index))
    if first != round(first) or last != round(last) or last - first > _STEPS:
        raise Unreadable("a long sum")
    result: Bounded = (0j, 0.0) if kind == "sum" else (1 + 0j, 0.0)
    for step in range(round(first), round(last) + 1):
        value = evaluate(body, index, {variable.args[0]: complex(step)})
        result = _sum([result, value]) if kind == "sum" else _product(result, value)
    return result

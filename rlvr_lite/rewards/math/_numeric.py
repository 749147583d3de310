r"""Values of expressions at two precisions: enough to refute an equality, never to prove one.

What 30 and 50 digits disagree on is the error of both, so cancellation widens the bound instead of refuting what is
equal. Variables take whole numbers from 2 up, where formulas in n and in x agree alike. Magnitudes are looked at before
anything is computed: what is beyond the range of floats is refused.
"""

from __future__ import annotations

import functools
import threading
import zlib
from fractions import Fraction
from typing import Any

from rlvr_lite.rewards.math._exact import TooLarge, meter
from rlvr_lite.rewards.math._nodes import Node, Unreadable, add, num

__all__ = ["POINTS", "differ", "evaluate", "near", "point"]

POINTS = 3
_DIGITS = (30, 50)
_BITS = 1_024
_NAMES = {"ln": "log", "abs": "fabs"}


@functools.lru_cache(maxsize=16)
def _contexts(thread: int) -> list[Any]:
    """mpmath's arithmetic at each number of digits, for one thread only: a context changes while it computes."""
    from mpmath.ctx_mp import MPContext

    found = [MPContext() for _ in _DIGITS]
    for context, digits in zip(found, _DIGITS, strict=True):
        context.dps = digits
    return found


def point(name: str, index: int) -> int:
    """The value of a variable at sample point ``index``: a whole number in 2..9 that depends on the name only."""
    return 2 + (zlib.crc32(f"{name}/{index}".encode("utf-8", "surrogatepass")) >> 7) % 8


def differ(left: Node, right: Node) -> bool | None:
    """Whether the two are proved to differ at one of the sample points; ``None`` if no point could be evaluated.

    :class:`TooLarge` is raised if every point is beyond the range of floats.
    """
    seen, beyond = None, 0
    for index in range(POINTS):
        try:
            (a, da), (b, db) = evaluate(left, index), evaluate(right, index)
        except OverflowError:
            beyond += 1
        except (ArithmeticError, ValueError, Unreadable):
            continue
        else:
            if abs(a - b) > 4 * (da + db):
                return True
            seen = False
    if beyond == POINTS:
        raise TooLarge("beyond the range of floats")
    return seen


def near(node: Node, value: Fraction, tolerance: Fraction) -> bool:
    """Whether a number lies within ``tolerance`` of ``value``; raises what :func:`evaluate` does."""
    found, error = evaluate(add(node, num(-value)))
    return bool(abs(found) <= error + found.context.mpf(tolerance.numerator) / tolerance.denominator)


def evaluate(node: Node, index: int = 0) -> tuple[Any, Any]:
    """Value (complex) and error bound at sample point ``index``, in mpmath's numbers.

    Raises:
        ArithmeticError, ValueError: out of the floats' range, or of a function's domain.
        Unreadable: an operator that has no numeric value here.
    """
    low, high = (_value(node, index, context) for context in _contexts(threading.get_ident()))
    error = 10 * abs(high - low) + abs(high) * high.context.mpf(10) ** (5 - _DIGITS[0])
    if not high.context.isfinite(high + error):
        raise ValueError("not finite")
    return high, error


def _value(node: Node, index: int, mp: Any) -> Any:
    meter.spend(1)
    if node.op == "sym":
        return mp.mpc(point(node.args[0], index))
    if node.op == "num":
        return _bounded(mp.mpc(node.args[0].numerator) / node.args[0].denominator)
    if node.op == "const":
        if node.args[0] == "inf":
            raise Unreadable("infinite")
        return mp.mpc({"pi": +mp.pi, "e": +mp.e, "i": mp.j}[node.args[0]])
    args = [_value(arg, index, mp) for arg in node.args if isinstance(arg, Node)]
    match node.op:
        case "add":
            return _bounded(mp.fsum(args) * mp.one)
        case "mul":
            return _bounded(mp.fprod(args) * mp.one)
        case "pow":
            return _power(args[0], args[1])
        case "deg":
            return args[0] * mp.pi / 180
        case "call":
            return mp.mpc(point(f"{node.args[0]}({[mp.nstr(arg, 9) for arg in args]})", index))
    return _function(node.args[0], args)


def _bounded(value: Any) -> Any:
    """``value``, if a float could hold something of its size."""
    if value and value.context.mag(value) > _BITS:
        raise OverflowError("beyond the range of floats")
    return value


def _real(value: Any) -> Any:
    """The real part of what is real but for rounding."""
    if abs(value.imag) > abs(value.real) * value.context.mpf(10) ** (10 - _DIGITS[0]):
        raise ValueError("a real argument is needed")
    return value.real


def _on_axis(value: Any) -> Any:
    """A negative number without the imaginary part that rounding left, on the right side of the branch cut."""
    tiny = value.real < 0 and abs(value.imag) < -value.real * value.context.mpf(10) ** (10 - _DIGITS[0])
    return value.context.mpc(value.real) if tiny else value


def _power(base: Any, exponent: Any) -> Any:
    mp = base.context
    if not base or abs(base) < mp.mpf(10) ** (5 - _DIGITS[0]) * (base.real != mp.nint(base.real)):
        if exponent.real <= 0:
            raise ZeroDivisionError("a power of zero")
        return mp.mpc(0)
    size = exponent.real * mp.log(abs(base), 2) if abs(exponent) < 2**_BITS else mp.inf
    if abs(size) > 4 * _BITS or abs(exponent.imag) > _BITS:
        if size < 0:
            return mp.mpc(0)
        raise OverflowError("beyond the range of floats")
    return _bounded(mp.mpc(_on_axis(base) ** exponent))


def _function(name: str, args: list[Any]) -> Any:
    x, mp = args[0], args[0].context
    if name == "root":
        n = args[1]
        if not n:
            raise ZeroDivisionError("a root of index zero")
        odd = x.imag == 0 and x.real < 0 and n.imag == 0 and mp.nint(n.real) % 2 == 1
        return -_power(-x, 1 / n) if odd else _power(x, 1 / n)
    if name in ("factorial", "binom"):
        values = [_real(arg) for arg in args]
        if max(values) > _BITS:
            raise OverflowError("beyond the range of floats")
        if min(values) < 0:
            raise ValueError("of a negative number")
        return _bounded(mp.mpc(getattr(mp, {"binom": "binomial"}.get(name, name))(*values)))
    if abs(x) > 1e9 and name not in ("abs", "ln"):
        raise ValueError("too large an argument")
    if name in ("floor", "ceil") and 0 < abs(x - mp.nint(_real(x))) < 1e-15:
        raise ValueError("too close to a jump")
    if name == "ln" and not x:
        raise ValueError("a logarithm of zero")
    name = _NAMES.get(name, name.replace("arc", "a"))
    if not hasattr(mp, name):
        raise Unreadable(name)
    return _bounded(mp.mpc(getattr(mp, name)(_on_axis(x) if name == "log" else x)))

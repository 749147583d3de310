"""What runs inside a worker: expressions built in sympy node by node, compared by math-verify.

No text reaches sympy: :func:`build` makes its objects from the tree that our own reader made, so there is nothing to
``eval``, ``sympify`` or misread.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from rlvr_lite.rewards.math.nodes import Node, fn, free_symbols, mul, num, sym
from rlvr_lite.rewards.math.numeric import POINTS, point
from rlvr_lite.rewards.math.scalars import Pair

__all__ = ["ADDRESS_SPACE", "SECONDS", "Check", "OutOfTime", "build", "judge", "load", "run_limited", "start_worker"]

SECONDS = 0.5
"""Processor time that one item may take before it is interrupted."""

ADDRESS_SPACE = 2 * 2**30
"""Bytes of memory that a worker may map."""

_DIGITS = 40

Check: TypeAlias = Callable[[Any], "tuple[bool | None, str]"]
"""What a worker runs: from a question to a verdict (``None``: cannot tell) and its reason."""


class OutOfTime(BaseException):
    """Raised inside a computation that has used up its time; no ``except Exception`` holds it up."""


def build(node: Node) -> Any:
    """The sympy object of an expression.

    Raises:
        KeyError: an operator that sympy is not asked about.
    """
    import sympy

    match node.op:
        case "num":
            return sympy.Rational(node.args[0].numerator, node.args[0].denominator)
        case "sym":
            return sympy.Symbol(node.args[0], real=True)
        case "const":
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "inf": sympy.oo}[node.args[0]]
        case "add":
            return sympy.Add(*map(build, node.args))
        case "mul":
            return sympy.Mul(*map(build, node.args))
        case "pow":
            return sympy.Pow(*map(build, node.args))
        case "deg":
            return build(node.args[0]) * sympy.pi / 180
        case "call":
            return sympy.Function(node.args[0])(*map(build, node.args[1:]))
        case "big":
            return _big(*node.args)
        case _:
            return _functions()[node.args[0]](*map(build, node.args[1:]))


def _big(kind: str, body: Node, variable: Node, low: Node, high: Node) -> Any:
    import sympy

    if kind == "lim":
        return sympy.Limit(build(body), build(variable), build(low))
    maker = {"sum": sympy.Sum, "prod": sympy.Product, "int": sympy.Integral}[kind]
    return maker(build(body), (build(variable), build(low), build(high)))


def _functions() -> dict[str, Callable[..., Any]]:
    import sympy

    inverse = {f"arc{name}": getattr(sympy, f"a{name}") for name in ("sin", "cos", "tan", "cot")}
    names = "sin cos tan cot sec csc sinh cosh tanh coth binomial factorial gcd lcm floor root".split()  # noqa: SIM905
    special = {"ln": sympy.log, "abs": sympy.Abs, "ceil": sympy.ceiling, "max": sympy.Max, "min": sympy.Min}
    return {name: getattr(sympy, name) for name in names} | inverse | special | {"binom": sympy.binomial}


def judge(pairs: Sequence[Pair]) -> tuple[bool, str]:
    """Whether each pair is equal, and why not."""
    from math_verify import grader

    grader.TIMEOUT_WARNING_SHOWN = True  # the limits are kept by whoever calls
    for gold, answer in pairs:
        left, right = build(gold), build(answer)
        if any(node.op == "big" for node in (*_walk(gold), *_walk(answer))):
            left, right = left.doit(), right.doit()
        if _differ(left - right, sorted(free_symbols(gold) | free_symbols(answer))):
            return False, "a different value"
        if not grader.verify(left, right, timeout_seconds=None):
            return False, "math-verify could not show that they are equal"
    return True, "math-verify finds them equal"


def _walk(node: Node) -> list[Node]:
    return [node, *(below for arg in node.args if isinstance(arg, Node) for below in _walk(arg))]


def _differ(difference: Any, names: Sequence[str]) -> bool:
    """Whether the difference is far from zero at a sample point, to 40 digits (math-verify itself looks at 15)."""
    import sympy

    for index in range(POINTS if names else 1):
        values = {sympy.Symbol(name, real=True): int(point(name, index).real) for name in names}
        with contextlib.suppress(Exception):
            value = difference.subs(values).evalf(_DIGITS)
            if value.is_number and value.is_finite and abs(value) > sympy.Float(10) ** (-_DIGITS // 2):
                return True
    return False


def start_worker() -> None:
    """Put limits on this process and load what it needs, before its first item."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # die at once, even inside a long C call
    _limit_memory()
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, _interrupt)
    load()


def load() -> None:
    """Import what :func:`judge` needs and fill the tables of its first use, so that no question pays for it."""
    x = sym("x")
    judge([(fn("sin", mul(num(2), x)), mul(num(2), fn("sin", x), fn("cos", x)))])


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = ADDRESS_SPACE if hard == resource.RLIM_INFINITY else min(ADDRESS_SPACE, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS knows the limit but does not set it
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _limit_processor() -> None:
    """The kernel ends this process two processor seconds from now, whatever it is doing."""
    try:
        import resource
    except ImportError:
        return
    used = time.process_time()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 3, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _interrupt(*_: Any) -> None:
    raise OutOfTime


def run_limited(function: Check, payload: Any, seconds: float) -> tuple[bool | None, str, float]:
    """``function(payload)`` under a limit on processor time; with the wall time it took, ``None`` if it did not end."""
    start = time.perf_counter()
    verdict: bool | None = None
    try:
        _limit_processor()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict, reason = function(payload)
        except MemoryError:
            reason = "no verdict within the memory limit"
        except Exception as error:
            reason = f"could not be compared ({type(error).__name__})"
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)
    except OutOfTime:  # it goes off once
        verdict, reason = None, f"no verdict within {seconds:g} s"
    return verdict, reason, time.perf_counter() - start

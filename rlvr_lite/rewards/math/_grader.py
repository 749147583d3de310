"""What runs inside a worker: expressions built in sympy node by node, compared by math-verify.

No text reaches sympy: :func:`build` makes its objects from the tree that our own reader made, so there is nothing to
``eval``, ``sympify`` or misread.

A worker answers each question in a child of its own (fork), which begins where every other began, so that an answer
depends neither on what was asked before nor on the load of the machine: what ends a long comparison is a number of
Python calls. Processor time and memory are caps behind that, wall time the last resort.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from rlvr_lite.rewards.math._nodes import Node, fn, free_symbols, mul, num, sym
from rlvr_lite.rewards.math._notation import fold
from rlvr_lite.rewards.math._numeric import POINTS, point
from rlvr_lite.rewards.math._scalars import Pair

__all__ = [
    "ADDRESS_SPACE",
    "LIMITS",
    "Answer",
    "Check",
    "Limits",
    "OutOfSteps",
    "build",
    "counted",
    "judge",
    "load",
    "run_limited",
    "start_worker",
]


class Limits(NamedTuple):
    """What one question may cost.

    Attributes:
        steps: calls of Python functions, after which equality counts as not shown.
        processor: seconds of processor time, after which the operating system ends the child.
        wall: seconds, after which the worker does.
    """

    steps: int = 800_000
    processor: int = 8
    wall: float = 60.0


LIMITS = Limits()

ADDRESS_SPACE = 2 * 2**30
"""Bytes of memory that a worker may map."""

_DIGITS = 40

Check: TypeAlias = Callable[[Any], "tuple[bool | None, str]"]
"""What a worker runs: from a question to a verdict (``None``: cannot tell) and its reason."""


class Answer(NamedTuple):
    """What came of a question: the verdict (``None``: there is none), why, the seconds, and whether it was cut short."""

    verdict: bool | None
    reason: str
    seconds: float
    cut: bool = False


class OutOfSteps(BaseException):
    """Raised inside a computation that has used up its steps; no ``except Exception`` holds it up."""


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
        case "fn" if node.args[0] == "root":
            return _root(build(node.args[1]), build(node.args[2]))
        case _:
            return _functions()[node.args[0]](*map(build, node.args[1:]))


def _root(of: Any, index: Any) -> Any:
    """The real root of a negative number, where the index is odd."""
    import sympy

    if index.is_Integer and index % 2 and of.is_number and of.is_negative:
        return -sympy.root(-of, index)
    return sympy.root(of, index)


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


def judge(pairs: Sequence[Pair]) -> tuple[bool | None, str]:
    """Whether each pair is equal, and why not."""
    from math_verify import grader

    grader.TIMEOUT_WARNING_SHOWN = True  # the limits are kept by whoever calls
    for gold, answer in pairs:
        if isinstance(gold, str) or isinstance(answer, str):
            return _judge_texts(str(gold), str(answer))
        left, right = build(gold), build(answer)
        if any(node.op == "big" for node in (*_walk(gold), *_walk(answer))):
            left, right = left.doit(), right.doit()
        if _differ(left - right, sorted(free_symbols(gold) | free_symbols(answer))):
            return False, "a different value"
        if not grader.verify(left, right, timeout_seconds=None) and not _vanishes(left - right):
            return False, "math-verify could not show that they are equal"
    return True, "math-verify finds them equal"


def _vanishes(difference: Any) -> bool:
    """Whether an algebraic number is zero, by its minimal polynomial."""
    import sympy

    if difference.free_symbols or not difference.is_algebraic:
        return False
    x = sympy.Dummy("x")
    return bool(sympy.minimal_polynomial(difference, x, compose=True) == x)


def parsed(text: str) -> Any:
    """What math-verify's LaTeX parser reads in an answer, ``None`` if that is nothing. Nothing in it evaluates text."""
    from math_verify import LatexExtractionConfig, parse, parser

    parser.TIMEOUT_WARNING_SHOWN = True  # the limits are kept by the worker
    latex = LatexExtractionConfig(boxed_match_priority=0)
    found = parse(f"\\boxed{{{fold(text)}}}", [latex], fallback_mode="no_fallback", parsing_timeout=None)
    return next((item for item in found if not isinstance(item, str)), None)


def _judge_texts(gold: str, answer: str) -> tuple[bool | None, str]:
    """What our reader does not know, as math-verify reads it."""
    from math_verify import grader

    grader.TIMEOUT_WARNING_SHOWN = True
    left = parsed(gold)
    if left is None:
        return None, "not judged: the gold cannot be read"
    try:
        return _same(left, parsed(answer))
    except MemoryError:
        raise
    except Exception as error:  # sympy has no answer for every pair of kinds; an answer must not escape its verdict so
        return False, f"the two cannot be compared ({type(error).__name__})"


def _same(left: Any, right: Any) -> tuple[bool, str]:
    """Whether math-verify finds what it read of gold and answer equal."""
    from math_verify import grader

    if right is None:
        return False, "the answer cannot be read as mathematics"
    equal = type(left).__name__ == type(right).__name__ or (left.is_number and right.is_number)
    if equal and not grader.verify(left, right, float_rounding=15, timeout_seconds=None):
        equal = False
    if (
        equal
        and hasattr(left - right if hasattr(left, "__sub__") else None, "free_symbols")
        and not hasattr(left, "shape")
    ):
        equal = not _differ(left - right, sorted(map(str, left.free_symbols | right.free_symbols)))
    return (True, "math-verify finds them equal") if equal else (False, "a different value, as math-verify reads it")


def _walk(node: Node) -> list[Node]:
    return [node, *(below for arg in node.args if isinstance(arg, Node) for below in _walk(arg))]


def _differ(difference: Any, names: Sequence[str]) -> bool:
    """Whether the difference is far from zero at a sample point, to 40 digits (math-verify itself looks at 15)."""
    import sympy

    for index in range(POINTS if names else 1):
        values = {s: int(point(str(s), index).real) for s in difference.free_symbols}
        with contextlib.suppress(Exception):
            value = difference.subs(values).evalf(_DIGITS)
            if value.is_number and value.is_finite and abs(value) > sympy.Float(10) ** (-_DIGITS // 2):
                return True
    return False


def start_worker() -> None:
    """Put limits on this process and load what it needs, before its first item."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # die at once, even inside a long C call
    _limit_memory()
    load()
    gc.collect()
    gc.freeze()  # the children share these pages


def load() -> None:
    """Import what :func:`judge` needs and fill the tables of its first use, so that no question pays for it."""
    x = sym("x")
    judge([(fn("sin", mul(num(2), x)), mul(num(2), fn("sin", x), fn("cos", x)))])
    for text in _TYPICAL:  # the parser learns its tables as it reads
        parsed(text)


_TYPICAL = (
    r"x = \frac{-b \pm \sqrt{5}}{2}, 3.5",
    r"(1, 2] \cup \{3\}",
    r"2^{n+1} \cdot \log_2 3 < 4\%",
    r"\text{a}",
    "%x ? y",
)


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


def run_limited(function: Check, payload: Any, limits: Limits) -> Answer:
    """``function(payload)`` in a child process of this one, within ``limits``; in this one where it cannot fork."""
    start = time.perf_counter()
    if not hasattr(os, "fork"):
        return Answer(*counted(function, payload, limits.steps), time.perf_counter() - start)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer_and_exit(function, payload, limits, writing)
    os.close(writing)
    try:
        data = _read(reading, start + limits.wall)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    seconds = time.perf_counter() - start
    if data is None:
        return Answer(None, f"not judged: no answer within {limits.wall:g} s", seconds, cut=True)
    try:
        verdict, reason = json.loads(data)
    except Exception:
        over = os.WIFSIGNALED(status) and os.WTERMSIG(status) == getattr(signal, "SIGXCPU", None)
        why = f"more than {limits.processor} s of processor time" if over else "its process ended"
        return Answer(None, f"not judged: {why}", seconds)
    return Answer(verdict, reason, seconds)


def _answer_and_exit(function: Check, payload: Any, limits: Limits, writing: int) -> None:
    """In the child: answer and end, whatever happens. Running out of steps ends it on the spot."""
    try:
        _limit_child(limits.processor)
        answer = counted(function, payload, limits.steps, stop=lambda: _send(writing, _out_of(limits.steps)))
        _send(writing, answer)
    finally:
        os._exit(1)


def _send(writing: int, answer: tuple[bool | None, str]) -> None:
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


def _limit_child(processor: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the worker
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 1))


def _read(reading: int, deadline: float) -> bytes | None:
    """Everything that the child writes; ``None`` if it is not done at the deadline."""
    data = b""
    while (left := deadline - time.perf_counter()) > 0:
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 65_536)
            if not part:
                return data
            data += part
    return None


def _out_of(steps: int) -> tuple[bool, str]:
    return False, f"equality was not shown within {steps:,} calls"


def counted(
    function: Check, payload: Any, steps: int, stop: Callable[[], None] | None = None
) -> tuple[bool | None, str]:
    """``function(payload)`` for so many calls of Python functions; equality counts as not shown after them.

    Args:
        function: what is run.
        payload: its argument.
        steps: how many calls.
        stop: called when they are used up, instead of an :class:`OutOfSteps` inside of the computation.
    """
    left = steps

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            if stop is not None:
                stop()
            raise OutOfSteps

    before = sys.gettrace()
    try:
        sys.settrace(count)
        return function(payload)
    except OutOfSteps:
        return _out_of(steps)
    except MemoryError:
        return None, "not judged: out of memory"
    except Exception as error:
        return None, f"not judged ({type(error).__name__})"
    finally:
        sys.settrace(before)

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
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from rlvr_lite.rewards.math._nodes import Node, fn, mul, num, sym
from rlvr_lite.rewards.math._notation import fold
from rlvr_lite.rewards.math._numeric import POINTS, point
from rlvr_lite.rewards.math._scalars import Pair

__all__ = [
    "ADDRESS_SPACE", "LIMITS", "Answer", "Check", "Limits", "OutOfSteps", "build", "counted", "judge", "load",
    "run_limited", "start_worker",
]  # fmt: skip


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
_BARE_SCRIPT = re.compile(r"([_^])\s*([A-Za-z])(?![A-Za-z])")  # math-verify's grammar reads x^{e}, but not x^e

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
    """The sympy object of an expression; ``KeyError`` for a logarithm without a base."""
    import sympy

    args = [build(arg) for arg in node.args if isinstance(arg, Node)]
    match node.op, node.args[0]:
        case "num", value:
            return sympy.Rational(value.numerator, value.denominator)
        case "sym", name:
            return sympy.Symbol(name, real=True)
        case "const", name:
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "inf": sympy.oo}[name]
        case "add" | "mul" | "pow", _:
            return getattr(sympy, node.op.capitalize())(*args)
        case "deg", _:
            return args[0] * sympy.pi / 180
        case "call", name:
            return sympy.Function(name)(*args)
        case _, "log":
            raise KeyError("a logarithm without a base")
        case _, "root" if args[1].is_Integer and args[1] % 2 and args[0].is_number and args[0].is_negative:
            return -sympy.root(-args[0], args[1])
    name = _NAMES.get(node.args[0], node.args[0].replace("arc", "a"))
    return getattr(sympy, name)(*args)


_NAMES = {"ln": "log", "abs": "Abs", "ceil": "ceiling", "binom": "binomial"}


def judge(pairs: Sequence[Pair]) -> tuple[bool | None, str]:
    """Whether each pair is equal, and why not."""
    from math_verify import grader

    grader.TIMEOUT_WARNING_SHOWN = True  # the limits are kept by whoever calls
    for gold, answer in pairs:
        left, right = _object(gold), _object(answer)
        if left is None:
            return None, "not judged: the gold cannot be read"
        if right is None:
            return False, "the answer cannot be read as mathematics"
        try:
            if left != right and (reason := _difference(left, right)):
                return False, reason
        except MemoryError:
            raise
        except Exception as error:  # sympy has no answer for every pair of kinds; no answer may escape its verdict so
            return False, f"the two cannot be compared ({type(error).__name__})"
    return True, "math-verify finds them equal"


def _object(side: Node | str) -> Any:
    """Our tree, or what math-verify's grammar reads in all of a text; ``None`` where that is nothing or has no value."""
    if isinstance(side, Node):
        return build(side)
    try:
        return _parsed(side)
    except MemoryError:
        raise
    except Exception:  # of many kinds: of the grammar, and of sympy for what has no value, such as the root of a row
        return None


def _parsed(text: str) -> Any:
    """What math-verify's grammar reads in all of a text, without the name before a value."""
    import sympy
    from latex2sympy2_extended import latex2sympy2
    from math_verify import LatexExtractionConfig

    found = latex2sympy2.latex2sympy(
        _BARE_SCRIPT.sub(r"\1{\2}", fold(text)),
        is_real=True,
        normalization_config=LatexExtractionConfig().normalization_config,
        conversion_config=latex2sympy2.ConversionConfig(lowercase_symbols=False),
    )
    if isinstance(found, sympy.Eq) and found.lhs.is_Symbol and found.lhs not in found.rhs.free_symbols:
        found = found.rhs
    if not isinstance(found, sympy.Basic | sympy.MatrixBase):
        return None
    free = {symbol.name: symbol for symbol in found.free_symbols}
    return _rebuilt(found.subs(free["i"], sympy.I) if "i" in free else found)


def _rebuilt(found: Any) -> Any:
    """The same with real variables, and evaluated where math-verify holds back, so that order does not matter."""
    import sympy

    if isinstance(found, sympy.Symbol):
        return sympy.Symbol(found.name, real=True)
    if isinstance(found, sympy.MatrixBase):
        return found.applyfunc(_rebuilt)
    return found.func(*map(_rebuilt, found.args)) if found.args else found


def _difference(left: Any, right: Any) -> str:
    """Why two objects of sympy are not equal; nothing if they are."""
    import sympy
    from math_verify import grader

    left, right = left.doit(), right.doit()
    scalar = isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)
    if not scalar and type(left).__name__ != type(right).__name__:
        return "another kind of answer, as math-verify reads it"
    if scalar and _differ(left - right):
        return "a different value"
    if grader.verify(left, right, float_rounding=15, timeout_seconds=None) or (scalar and _vanishes(left - right)):
        return ""
    return "math-verify could not show that they are equal"


def _vanishes(difference: Any) -> bool:
    """Whether an algebraic number is zero, by its minimal polynomial, or factorials cancel."""
    import sympy

    if difference.has(sympy.factorial, sympy.binomial):
        return bool(sympy.gammasimp(difference) == 0)
    if difference.free_symbols or not difference.is_algebraic:
        return False
    x = sympy.Dummy("x")
    return bool(sympy.minimal_polynomial(difference, x, compose=True) == x)


def _differ(difference: Any) -> bool:
    """Whether the difference is far from zero at a sample point, to 40 digits (math-verify itself looks at 15)."""
    import sympy

    names = difference.free_symbols
    for index in range(POINTS if names else 1):
        with contextlib.suppress(Exception):
            value = difference.subs({symbol: point(str(symbol), index) for symbol in names}).evalf(_DIGITS)
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
        _object(text)


_TYPICAL = (r"x = \frac{-b \pm \sqrt{5}}{2}, 3.5", r"(1, 2] \cup \{3\}", r"2^{n+1} \cdot \log_2 3 < 4\%", "%x ? y")


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

    def count_on(_frame: Any, event: str, _arg: Any) -> None:
        """A finaliser swallows what is raised in it, and an exception from :func:`count` ends the tracing."""
        if left < 0 and event == "call":
            sys.settrace(count)

    before = sys.gettrace(), sys.getprofile()
    try:
        sys.setprofile(count_on if stop is None else before[1])
        sys.settrace(count)
        answer = function(payload)
    except OutOfSteps:
        return _out_of(steps)
    except MemoryError:
        return None, "not judged: out of memory"
    except Exception as error:
        return None, f"not judged ({type(error).__name__})"
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return _out_of(steps) if left < 0 else answer

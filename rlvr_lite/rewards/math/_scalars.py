"""Whether two expressions are equal: proved equal, proved different, or a question for a computer algebra system."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rlvr_lite.rewards.math._algebra import Normaliser, equal_forms
from rlvr_lite.rewards.math._exact import TooLarge, Undefined
from rlvr_lite.rewards.math._nodes import INFINITY, MINUS_INFINITY, E, Node, divide, fn, free_symbols, num, sym
from rlvr_lite.rewards.math._numeric import differ

__all__ = ["DIFFERENT", "EQUAL", "Outcome", "Pair", "all_of", "any_of", "has_log", "same"]

Pair = tuple[Node | str, Node | str]
"""Two expressions, or two texts that only math-verify may be able to read."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known about an equality.

    Attributes:
        equal: ``None`` while it depends on :attr:`pairs`.
        pairs: expressions that all have to be equal too.
        how: the stage that got this far.
        reason: why not, in a few words.
    """

    equal: bool | None
    how: str
    reason: str = ""
    pairs: tuple[Pair, ...] = ()


EQUAL = Outcome(True, "structure")
DIFFERENT = Outcome(False, "structure", "a different kind of answer")
_RANK = {"number": 0, "text": 0, "algebra": 1, "numeric": 2, "structure": 3}


def all_of(outcomes: list[Outcome]) -> Outcome:
    """Equal if all are; the first that is not tells why."""
    for outcome in outcomes:
        if outcome.equal is False:
            return outcome
    how = max((outcome.how for outcome in outcomes), key=_RANK.__getitem__, default="structure")
    pairs = tuple(pair for outcome in outcomes for pair in outcome.pairs)
    return Outcome(None, how, "", pairs) if pairs else Outcome(True, how)


def any_of(outcomes: list[Outcome]) -> Outcome:
    """Equal if one is; else the first undecided one, else the first refusal."""
    for wanted in (True, None):
        for outcome in outcomes:
            if outcome.equal is wanted:
                return outcome
    return outcomes[0]


@lru_cache(maxsize=1_024)
def same(gold: Node, answer: Node) -> Outcome:
    r"""Whether two expressions have the same value.

    A logarithm without a base is read as natural, decimal, or of any one base, whichever makes the two equal.
    """
    if gold == answer:
        return Outcome(True, "number" if gold.op == "num" else "algebra")
    if gold.op == "num" and answer.op == "num":
        return Outcome(False, "number", f"{_brief(gold)} is not {_brief(answer)}")
    infinite = [node for node in (gold, answer) if node in (INFINITY, MINUS_INFINITY)]
    if infinite:
        return Outcome(False, "structure", "infinite")
    if not (has_log(gold) or has_log(answer)):
        return _compare(gold, answer)
    return any_of([_compare(_with_base(gold, base), _with_base(answer, base)) for base in _LOG_BASES])


_LOG_BASES = (sym("base of log"), E, num(10))


def has_log(node: Node) -> bool:
    """Whether there is a logarithm without a base in it."""
    if node.op == "fn" and node.args[0] == "log":
        return True
    return any(has_log(arg) for arg in node.args if isinstance(arg, Node))


def _with_base(node: Node, base: Node) -> Node:
    """``node`` with the logarithms that name no base taken to ``base``."""
    args = tuple(_with_base(arg, base) if isinstance(arg, Node) else arg for arg in node.args)
    if node.op == "fn" and node.args[0] == "log":
        return divide(fn("ln", *args[1:]), fn("ln", base))
    return Node(node.op, args)


def _compare(gold: Node, answer: Node) -> Outcome:
    normaliser = Normaliser()
    try:
        left, right = normaliser.form(gold), normaliser.form(answer)
        if equal_forms(left, right, normaliser):
            return Outcome(True, "number" if left.value is not None else "algebra")
        if normaliser.canonical:
            return Outcome(
                False,
                "number" if left.value is not None and right.value is not None else "algebra",
                "a different value",
            )
    except Undefined as error:
        return Outcome(False, "algebra", f"no finite value: {error}")
    except TooLarge as error:
        if "terms" not in str(error):
            return Outcome(False, "algebra", f"too large to be evaluated: {error}")
    if free_symbols(gold) != free_symbols(answer):
        return Outcome(False, "algebra", "other variables")
    try:
        if differ(gold, answer):
            return Outcome(False, "numeric", "a different value at a sample point")
    except TooLarge:
        return Outcome(False, "numeric", "too large to be evaluated")
    if normaliser.huge:
        return Outcome(False, "algebra", "too large to be evaluated")
    return Outcome(None, "algebra", "", ((gold, answer),))


def _brief(node: Node) -> str:
    text = str(node.args[0]) if node.args[0].numerator.bit_length() < 200 else "a long number"
    return text if len(text) <= 40 else f"{text[:20]}...{text[-10:]}"

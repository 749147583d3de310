"""The verdict on a completion: extraction, then the cheapest stage that can decide."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from rlvr_lite.errors import UserError
from rlvr_lite.rewards.math.compare import compare
from rlvr_lite.rewards.math.exact import TooMuchWork, decimal, meter
from rlvr_lite.rewards.math.extract import extract
from rlvr_lite.rewards.math.grader import judge
from rlvr_lite.rewards.math.nodes import Unreadable
from rlvr_lite.rewards.math.notation import plain, words
from rlvr_lite.rewards.math.scalars import Outcome
from rlvr_lite.rewards.math.structure import Named, Value, read
from rlvr_lite.rewards.math.verdict import Verdict
from rlvr_lite.rewards.math.workers import ask

__all__ = ["decide", "explain", "verify", "verify_batch"]

UNEXPECTED = "could not be compared"
_ENTRIES = 16_384
_LONGEST = 1_000


class _Decision(NamedTuple):
    """The part of a verdict that depends on gold and answer only."""

    correct: bool | None
    how: str
    reason: str


class _Cache:
    """The decisions used last; long answers are not kept."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: OrderedDict[tuple[str, str], _Decision] = OrderedDict()

    def get(self, key: tuple[str, str]) -> _Decision | None:
        with self.lock:
            found = self.kept.get(key)
            if found is not None:
                self.kept.move_to_end(key)
            return found

    def put(self, key: tuple[str, str], decision: _Decision) -> None:
        if len(key[0]) + len(key[1]) > _LONGEST:
            return
        with self.lock:
            self.kept[key] = decision
            if len(self.kept) > _ENTRIES:
                self.kept.popitem(last=False)


_cache = _Cache()


def _forget() -> None:
    """A forked child gets a new cache, with a lock that nobody holds."""
    global _cache
    _cache = _Cache()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def decide(gold: str, answer: str) -> Outcome:
    """What can be said about an answer without a worker; :attr:`Outcome.equal` is ``None`` if one is needed."""
    if gold == answer:
        return Outcome(True, "string", "the same text")
    left, right = decimal(gold), decimal(answer)
    if left is not None and right is not None:
        return Outcome(left == right, "number", "the same number" if left == right else "another number")
    if plain(gold) == plain(answer):
        return Outcome(True, "string", "the same text but for layout")
    return _read_and_compare(gold, answer)


def _read_and_compare(gold: str, answer: str) -> Outcome:
    first, second = read(gold), read(answer)
    if isinstance(first, Unreadable):
        return _as_text(gold, answer, f"the gold is text ({first})")
    if isinstance(second, Unreadable):
        if isinstance(first, Value) and first.node.op in ("sym", "mul"):
            return _as_text(gold, answer, f"the answer cannot be read as mathematics ({second})")
        return Outcome(False, "text", f"the answer cannot be read as mathematics ({second})")
    if isinstance(first, Named) and first.name not in ("empty", "R") and first != second:
        return _as_text(gold, answer, "the gold is a name")
    return compare(first, second)


def _as_text(gold: str, answer: str, reason: str) -> Outcome:
    """Words compared without regard to case; a single letter outside a text macro keeps its case where it is e or i."""
    same = words(gold) == words(answer) and answer.strip() not in ("e", "i")
    return Outcome(same, "text", "the same words" if same else f"other words; {reason}")


def _decide_safely(gold: str, answer: str) -> Outcome:
    """:func:`decide`, within the budget of one verdict. No text may raise; if one does, that costs this verdict only."""
    try:
        with meter.limited():
            return decide(gold, answer)
    except TooMuchWork:
        return Outcome(False, "structure", "too long to be compared")
    except Exception as error:
        return Outcome(False, "structure", f"{UNEXPECTED} ({type(error).__name__})")


def verify(gold: str, completion: str) -> Verdict:
    r"""Whether the boxed answer of a completion equals the gold. Never raises, never hangs.

    See :mod:`rlvr_lite.rewards` for the policy and :class:`Verdict` for what comes back.

    >>> verify("1/2", r"<think>3/6</think> It is $\boxed{0.5}$.").correct
    True
    >>> verify("42", r"<think>42, so \boxed{42}").reason
    'the thinking was never closed'
    """
    return verify_batch([gold], [completion])[0]


def verify_batch(golds: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
    """The verdicts on many completions, in their order; what needs a worker runs in all of them at once.

    Raises:
        UserError: the two lists differ in length.
    """
    if len(golds) != len(completions):
        raise UserError(f"{len(golds)} golds for {len(completions)} completions: give one each")
    verdicts: list[Verdict | None] = [None] * len(golds)
    waiting: dict[tuple[str, str], tuple[Outcome, list[tuple[int, float]]]] = {}
    for i, (gold, completion) in enumerate(zip(golds, completions, strict=True)):
        start = time.perf_counter()
        gold = _text(gold)
        if not isinstance(completion, str):
            verdicts[i] = Verdict(
                False, None, "extract", 0.0, f"the completion is a {type(completion).__name__}, not text"
            )
            continue
        answer, reason = extract(completion)
        if answer is None:
            verdicts[i] = Verdict(False, None, "extract", time.perf_counter() - start, reason)
            continue
        key = (gold, answer)
        if key in waiting:
            waiting[key][1].append((i, time.perf_counter() - start))
            continue
        decision = _cache.get(key)
        if decision is None:
            if not gold.strip():
                outcome = Outcome(False, "string", "the gold is empty")
            else:
                outcome = _decide_safely(gold, answer)
            if outcome.equal is None:
                waiting[key] = (outcome, [(i, time.perf_counter() - start)])
                continue
            decision = _Decision(outcome.equal, outcome.how, outcome.reason)
            _cache.put(key, decision)
        verdicts[i] = Verdict(decision.correct, answer, decision.how, time.perf_counter() - start, decision.reason)
    answers = ask(judge, [outcome.pairs for outcome, _ in waiting.values()]) if waiting else []
    for (key, (_, places)), (found, reason, seconds, _) in zip(waiting.items(), answers, strict=True):
        if found is not None:
            _cache.put(key, _Decision(found, "math-verify", reason))
        for order, (i, spent) in enumerate(places):
            verdicts[i] = Verdict(found, key[1], "math-verify", spent + (seconds if order == 0 else 0.0), reason)
    return [verdict for verdict in verdicts if verdict is not None]


def _text(gold: Any) -> str:
    """Golds come from data sets, where numbers are often stored as such."""
    return gold if isinstance(gold, str) else "" if gold is None else str(gold)


def explain(gold: str, answer: str) -> str:
    r"""A verdict in one line; ``answer`` is a completion with a box, or the bare answer.

    >>> print(explain("1/2", "0.5").split(" (")[0])
    correct: '0.5' equals '1/2'
    """
    bare = "\\boxed" not in answer
    verdict = verify(gold, f"\\boxed{{{answer}}}" if bare else answer)
    shown = "no answer" if verdict.extracted is None else repr(_short(verdict.extracted))
    word, relation = {
        True: ("correct", "equals"),
        False: ("wrong", "is not"),
        None: ("not judged", "against"),
    }[verdict.correct]
    detail = f"{verdict.reason}; " if verdict.reason else ""
    return (
        f"{word}: {shown} {relation} {_short(_text(gold))!r} "
        f"({detail}decided by {verdict.how} in {1000 * verdict.seconds:.1f} ms)"
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"

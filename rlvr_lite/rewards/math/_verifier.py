"""The verdict on a completion: extraction, then the cheapest stage that can decide."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_lite.errors import UserError, printable
from rlvr_lite.rewards.math._compare import compare
from rlvr_lite.rewards.math._exact import TooMuchWork, decimal, meter
from rlvr_lite.rewards.math._extract import FALLBACK, extract
from rlvr_lite.rewards.math._grader import judge
from rlvr_lite.rewards.math._nodes import Named, Reading, Unreadable, Value
from rlvr_lite.rewards.math._notation import plain, words
from rlvr_lite.rewards.math._scalars import Outcome, has_log
from rlvr_lite.rewards.math._structure import read
from rlvr_lite.rewards.math._words import affirmed, clock, foreign, is_words, option
from rlvr_lite.rewards.math._workers import ask

__all__ = ["Verdict", "decide", "explain", "reference", "unreadable_golds", "verify", "verify_batch"]

UNEXPECTED = "could not be compared"
_ENTRIES = 16_384
_LONGEST = 1_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one completion.

    Attributes:
        correct: whether the answer equals the gold; ``None`` if that could not be judged: the gold cannot be read, or the
            comparison was cut short. Such a verdict says nothing about the answer: leave it out, do not count it as wrong.
        extracted: the text in the last box, at most :data:`~rlvr_lite.rewards.math._extract.ANSWER` characters; ``None`` if
            there is no answer.
        how: the stage that decided: "extract" (there is no answer), "string", "number", "text", "structure",
            "algebra", "numeric", "math-verify".
        seconds: time spent on this item, without waiting for others.
        reason: why, in a few words.
    """

    correct: bool | None
    extracted: str | None
    how: str
    seconds: float
    reason: str


#: The decisions made last; a dictionary's own operations are atomic, so threads and forked children need no lock.
_kept: dict[tuple[str, str], Outcome] = {}


def _keep(key: tuple[str, str], decision: Outcome) -> None:
    """Remember a decision on texts that are not long."""
    if len(_kept) >= _ENTRIES:
        _kept.clear()
    if len(key[0]) + len(key[1]) <= _LONGEST:
        _kept[key] = decision


def decide(gold: str, answer: str) -> Outcome:
    """What can be said about an answer without a worker; :attr:`Outcome.equal` is ``None`` if one is needed."""
    if gold == answer:
        return Outcome(True, "string", "the same text")
    left, right = decimal(gold), decimal(answer)
    if left is not None and right is not None:
        return Outcome(left == right, "number", "the same number" if left == right else "another number")
    if plain(gold) == plain(answer):
        return Outcome(True, "string", "the same text but for layout")
    if (times := (clock(gold), clock(answer)))[0] and times[1] and (times[0][1] or times[1][1]):
        equal = times[0][0] == times[1][0] and (times[0][1] or times[1][1]) == (times[1][1] or times[0][1])
        return Outcome(equal, "text", "the same time" if equal else "another time")
    chosen, offered = option(gold), option(answer)
    if chosen and offered:
        return Outcome(chosen.letter == offered.letter, "text", "by the letter of the option")
    found = _read_and_compare(gold, answer)
    if found.equal is not True and chosen and chosen.rest:
        found = _read_and_compare(chosen.rest, answer)
    if found.equal is not True and offered and offered.rest:
        found = _read_and_compare(gold, offered.rest)
    return found


def _read_and_compare(gold: str, answer: str) -> Outcome:
    first, second = (_meant(text, read(text)) for text in (gold, answer))
    if isinstance(first, Unreadable):
        return _as_text(gold, answer, f"the gold is text ({first})")
    if isinstance(second, Unreadable):
        reason = f"the answer cannot be read as mathematics ({second})"
        named = isinstance(first, Value) and first.node.op in ("sym", "mul")
        if foreign(answer) and not (named and words(gold) == words(answer)):
            tree = first.node if isinstance(first, Value) and not first.unit and not has_log(first.node) else gold
            return Outcome(None, "text", "", ((tree, answer),))
        return _as_text(gold, answer, reason) if named else Outcome(False, "text", reason)
    if isinstance(first, Named) and first.name not in ("empty", "R") and first != second:
        return _as_text(gold, answer, "the gold is a name")
    return compare(first, second)


def _meant(text: str, reading: Reading | Unreadable) -> Reading | Unreadable:
    """Words for the empty set are the empty set."""
    return Named("empty") if isinstance(reading, Unreadable) and _NOTHING.fullmatch(words(text)) else reading


_NOTHING = re.compile(r"(there (is|are) )?no( real)? (solutions?|roots?)( exists?)?|empty set|none")


def _as_text(gold: str, answer: str, reason: str) -> Outcome:
    """Words compared without regard to case; a single letter outside a text macro keeps its case where it is e or i.

    A gold that is neither mathematics nor a few words cannot be compared with any other text.
    """
    if words(gold) == words(answer) and answer.strip() not in ("e", "i"):
        return Outcome(True, "text", "the same words")
    if affirmed(gold, answer):
        return Outcome(True, "text", "the same, with a sentence after it")
    if is_words(gold) or isinstance(read(gold), Named | Value):
        return Outcome(False, "text", f"other words; {reason}")
    if foreign(gold):
        return Outcome(None, "text", "", ((gold, answer if foreign(answer) else ""),))
    return Outcome(None, "text", f"not judged: the gold cannot be read; {reason}")


def reference(gold: str) -> str:
    r"""The answer in a gold: what follows ``####``, or stands in its last box, or all of it.

    >>> reference("18 - 13 = 5\n#### 5"), reference(r"So it is $\boxed{5}$.")
    ('5', '5')
    """
    _, mark, after = gold.rpartition("####")
    if mark and after.strip():
        return after.strip()
    return (extract(gold).answer or gold) if "\\boxed" in gold else gold


def unreadable_golds(golds: Sequence[Any]) -> list[str]:
    r"""The distinct golds that no answer but the same text can equal, in their order; their verdicts are ``None``.

    Count them before a run: a problem with such a gold teaches nothing.

    >>> unreadable_golds(["5", r"\frac{1}{2}", "Evelyn", "either 3 apples, or 4 if it rains"])
    ['either 3 apples, or 4 if it rains']
    """
    found = {text: reference(text) for text in map(_text, golds) if text.strip()}
    doubtful = [
        text
        for text, gold in found.items()
        if not (clock(gold) or option(gold)) and isinstance(_meant(gold, read(gold)), Unreadable)
    ]
    probes = verify_batch(doubtful, ["\\boxed{0}"] * len(doubtful))
    return [text for text, verdict in zip(doubtful, probes, strict=True) if verdict.correct is None]


def _decide_safely(gold: str, answer: str) -> Outcome:
    """:func:`decide`, within the budget of one verdict. No text may raise; if one does, that costs this verdict only."""
    try:
        with meter.limited():
            return decide(gold, answer)
    except TooMuchWork:
        return Outcome(False, "structure", "too long to be compared")
    except Exception as error:
        return Outcome(False, "structure", f"{UNEXPECTED} ({type(error).__name__})")


def verify(gold: str, completion: str, *, prompt: object = "", fallback: str | None = None) -> Verdict:
    r"""Whether the boxed answer of a completion equals the gold. Never raises, never hangs.

    See :mod:`rlvr_lite.rewards` for the policy and :class:`Verdict` for what comes back.

    Args:
        gold: the right answer.
        completion: the whole text.
        prompt: as the model saw it (text, or messages); where it ends in an opened ``<think>``, the completion begins
            with thinking.
        fallback: "answer is" takes, where there is no box at all, what follows the last "answer is" or ``####``: for base
            models that do not box. Off by default.

    >>> verify("1/2", r"<think>3/6</think> It is $\boxed{0.5}$.").correct
    True
    >>> verify("42", r"<think>42, so \boxed{42}").reason
    'the thinking was never closed'
    """
    return verify_batch([gold], [completion], prompts=[prompt], fallback=fallback)[0]


def verify_batch(
    golds: Sequence[str],
    completions: Sequence[str],
    *,
    prompts: Sequence[object] | None = None,
    fallback: str | None = None,
) -> list[Verdict]:
    """The verdicts on many completions, in their order; what needs a worker runs in all of them at once.

    Args:
        golds: the right answers.
        completions: the whole texts.
        prompts: one each, see :func:`verify`.
        fallback: see :func:`verify`.

    Raises:
        UserError: the lists differ in length, or there is no such ``fallback``.
    """
    if fallback not in (None, FALLBACK):
        raise UserError(f"there is no fallback {fallback!r}: leave it out, or name {FALLBACK!r}")
    if prompts is not None and len(prompts) != len(completions):
        raise UserError(f"{len(prompts)} prompts for {len(completions)} completions: give one each")
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
        answer, reason = extract(completion, "" if prompts is None else prompts[i], fallback)
        if answer is None:
            verdicts[i] = Verdict(False, None, "extract", time.perf_counter() - start, reason)
            continue
        key = (gold, answer)
        if key in waiting:
            waiting[key][1].append((i, time.perf_counter() - start))
            continue
        decision = _kept.get(key)
        if decision is None:
            if not gold.strip():
                outcome = Outcome(False, "string", "the gold is empty")
            else:
                outcome = _decide_safely(reference(gold), answer)
            if outcome.equal is None and outcome.pairs:
                waiting[key] = (outcome, [(i, time.perf_counter() - start)])
                continue
            decision = outcome
            _keep(key, decision)
        verdicts[i] = Verdict(decision.equal, answer, decision.how, time.perf_counter() - start, decision.reason)
    answers = ask(judge, [outcome.pairs for outcome, _ in waiting.values()]) if waiting else []
    for (key, (_, places)), (found, reason, seconds, _) in zip(waiting.items(), answers, strict=True):
        if found is not None:
            _keep(key, Outcome(found, "math-verify", reason))
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
    relation = {True: f"correct: {shown} equals", False: f"wrong: {shown} is not", None: f"not judged: {shown} against"}
    detail = f"{verdict.reason}; " if verdict.reason else ""
    decided = f"decided by {verdict.how} in {1000 * verdict.seconds:.1f} ms"
    return printable(f"{relation[verdict.correct]} {_short(_text(gold))!r} ({detail}{decided})")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"

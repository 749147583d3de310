"""A second opinion on verdicts: math-verify's, reader and comparison both.

The audit is a list for a person to read, not a correction: math-verify is known to misread some notations (bases, capital
letters, units) and to take rounded values and equations for the values in them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rlvr_lite.errors import UserError
from rlvr_lite.rewards._functions import text_of
from rlvr_lite.rewards.math._exact import decimal
from rlvr_lite.rewards.math._notation import fold
from rlvr_lite.rewards.math._verifier import unreadable_golds, verify_batch
from rlvr_lite.rewards.math._workers import ask
from rlvr_lite.table import Table

__all__ = ["audit", "second_opinion"]

_E_NOTATION = re.compile(r"(?<![A-Za-z0-9.])(\d+\.?\d*|\.\d+)[eE]([+-]?\d+)(?![A-Za-z0-9.])")
_COLUMNS = ("kind", "gold", "answer", "verdict", "second opinion", "how", "times", "reason")


def audit(rollouts: Iterable[Mapping[str, Any]]) -> Table:
    r"""The verdicts that a second opinion disagrees with and the golds that cannot be read, by kind, most frequent first.

    Args:
        rollouts: rows such as those of ``rollouts.jsonl``: ``answer`` (or ``gold``), ``completion``, ``opened`` where
            the prompt opened the thinking, and, if a verdict is on record, ``correct`` or ``rewards["accuracy"]``; else
            the completion is verified now.

    Returns:
        A table with one row a disputed pair of gold and answer. Its note says how many pairs were looked at, how many are
        of each kind, and on how many there was no second opinion (notation that one of the readers does not know).

    Raises:
        UserError: a row has no gold or no completion.
    """
    rows = list(rollouts)
    for number, row in enumerate(rows, start=1):
        if row.get("answer", row.get("gold")) is None or "completion" not in row:
            raise UserError(f"rollout {number} has no answer or no completion: audit needs both columns")
    golds = [str(row.get("answer", row.get("gold"))) for row in rows]
    opened = ["<think>" if row.get("opened") else "" for row in rows]
    verdicts = verify_batch(golds, [text_of(row["completion"]) for row in rows], prompts=opened)
    found: dict[tuple[str, str, bool | None], list[Any]] = {}
    for row, gold, verdict in zip(rows, golds, verdicts, strict=True):
        if verdict.extracted is not None:
            key = (gold, verdict.extracted, _recorded(row, verdict.correct))
            found.setdefault(key, [verdict, 0])[1] += 1
    pairs = [(gold, answer) for gold, answer, _ in found]
    plain = [(decimal(gold), decimal(answer)) for gold, answer in pairs]
    opinions: list[bool | None] = [left == right if left and right else None for left, right in plain]
    hard = [i for i, (verdict, _) in enumerate(found.values()) if opinions[i] is None and verdict.how != "text"]
    for i, (opinion, *_) in zip(hard, ask(second_opinion, [pairs[i] for i in hard]), strict=True) if hard else ():
        opinions[i] = opinion
    unread = dict.fromkeys(unreadable_golds(golds))
    disputed: list[dict[str, Any]] = []
    for ((gold, answer, correct), (verdict, times)), opinion in zip(found.items(), opinions, strict=True):
        if opinion is not None and opinion != correct and gold not in unread:
            kind = "accepted here only" if correct else "not accepted here"
            values = (kind, gold, answer, _word(correct), _word(opinion), verdict.how, times, verdict.reason)
            disputed.append(dict(zip(_COLUMNS, values, strict=True)))
    disputed += [{"kind": "gold cannot be read", "gold": gold, "times": golds.count(gold)} for gold in unread]
    kinds = Counter(row["kind"] for row in disputed)
    disputed.sort(key=lambda row: (-kinds[row["kind"]], row["kind"], -row["times"]))
    silent = sum(opinion is None for opinion in opinions)
    note = f"{len(rows):,} completions, {len(pairs):,} pairs of gold and answer, {silent:,} without a second opinion"
    note = "; ".join([note, *(f"{count:,} {kind}" for kind, count in kinds.most_common())])
    return Table(_COLUMNS, tuple(disputed), title=f"{len(disputed)} doubtful verdicts", note=note)


def _recorded(row: Mapping[str, Any], computed: bool | None) -> bool | None:
    if isinstance(row.get("correct"), bool):
        return row["correct"]
    rewards = row.get("rewards")
    recorded = rewards.get("accuracy") if isinstance(rewards, Mapping) else None
    return recorded == 1 if isinstance(recorded, int | float) else computed


def _word(correct: bool | None) -> str:
    return "not judged" if correct is None else "correct" if correct else "wrong"


def second_opinion(pair: tuple[str, str]) -> tuple[bool | None, str]:
    """Whether math-verify finds that gold and answer are equal (runs in a worker)."""
    from math_verify import grader

    grader.TIMEOUT_WARNING_SHOWN = True  # the limits are kept by the worker
    left, right = (_parsed(_E_NOTATION.sub(r"\1 \\times 10^{\2}", fold(text))) for text in pair)
    if left is None or right is None:
        return None, "cannot be read"
    return bool(grader.verify(left, right, timeout_seconds=None)), "as math-verify finds"


def _parsed(text: str) -> Any:
    """What math-verify's LaTeX parser reads in an answer, ``None`` if that is nothing. Nothing in it evaluates text."""
    from math_verify import LatexExtractionConfig, parse, parser

    parser.TIMEOUT_WARNING_SHOWN = True  # the limits are kept by the worker
    latex = LatexExtractionConfig(boxed_match_priority=0)
    found = parse(f"\\boxed{{{fold(text)}}}", [latex], fallback_mode="no_fallback", parsing_timeout=None)
    return next((item for item in found if not isinstance(item, str)), None)

"""Verdict rules: pure functions from what a study found to what may be said of a claim, written before any run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_lite.analysis.replication import equivalent, seed_problem_difference, verdict
from rlvr_lite.analysis.statistics import holm
from rlvr_lite.paper._evidence import (
    Evidence,
    Finding,
    Judged,
    Missing,
    Rule,
    Scores,
    Verdict,
    over_seeds,
    paired,
)

__all__ = [
    "all_better",
    "all_equivalent",
    "all_worse",
    "below_base",
    "best_rate_falls",
    "cause_is_direction",
    "falls_behind",
    "falls_more",
    "no_gain",
    "not_run",
    "not_worse",
    "off_principal",
    "ratio_above_one",
    "shares_match",
]

#: Shares of a random update's energy within which an update counts as random.
_RANDOM = (0.9, 1.1)
#: Decades to which the ratio of two searched rates is known.
_RATIO_KNOWN = 0.5


def _decide(supports: bool, refutes: bool) -> Verdict:
    return "supported" if supports else "not supported" if refutes else "undecided"


def _all(supports: Callable[[Judged], bool], refutes: Callable[[Judged], bool]) -> Callable[..., Rule]:
    """Supported if each row is as it should be; not supported if one is the contrary."""

    def of(rows: Sequence[str], reference: str) -> Rule:
        def rule(evidence: Evidence) -> Finding:
            found = evidence.family(rows, reference)
            against = [row for row, judged in found.items() if refutes(judged)]
            open_rows = [row for row, judged in found.items() if not supports(judged)]
            said = _decide(not open_rows, bool(against))
            row = (against or open_rows or list(found))[0]
            told = "; ".join(f"{name} {judged.words}" for name, judged in found.items())
            return Finding.of(said, found[row].difference, f"against {reference}: {told}")

        return rule

    return of


def all_better(rows: Sequence[str], reference: str) -> Rule:
    """Each row beats the reference, by however little; one that is worse, or equivalent without being better, refutes it."""
    return _all(
        lambda j: j.direction == "better", lambda j: j.direction == "worse" or (j.within and j.direction != "better")
    )(rows, reference)


def all_worse(rows: Sequence[str], reference: str) -> Rule:
    """Each row stays behind the reference, by however little; one that is better, or equivalent without being worse, refutes it."""
    return _all(
        lambda j: j.direction == "worse", lambda j: j.direction == "better" or (j.within and j.direction != "worse")
    )(rows, reference)


def all_equivalent(rows: Sequence[str], reference: str) -> Rule:
    """Each row lies within the equivalence margin, whatever its direction; one that lies wholly outside of it refutes it.

    A significant difference alone refutes nothing: it may be smaller than the margin. Without a margin, it does.
    """

    def rule(evidence: Evidence) -> Finding:
        def outside(j: Judged) -> bool:
            beyond = min(abs(j.difference.low), abs(j.difference.high)) > evidence.margin
            return beyond and j.direction in ("better", "worse")

        return _all(lambda j: j.within, outside)(rows, reference)(evidence)

    return rule


def no_gain(row: str, reference: str) -> Rule:
    """The row gains no more than the equivalence margin: its interval ends below it. A gain beyond, that excludes zero, refutes it."""

    def rule(evidence: Evidence) -> Finding:
        d = evidence.against(row, reference)
        said = _decide(d.high <= evidence.margin, d.low > 0)
        return Finding.of(said, d, f"{row} against {reference}: {d.signed}, equivalence margin {evidence.margin:.3g}")

    return rule


def not_worse(row: str, reference: str) -> Rule:
    """The row loses no more than the equivalence margin. A loss beyond, that excludes zero, refutes it."""

    def rule(evidence: Evidence) -> Finding:
        d = evidence.against(row, reference)
        said = _decide(d.low >= -evidence.margin, d.high < 0)
        return Finding.of(said, d, f"{row} against {reference}: {d.signed}, equivalence margin {evidence.margin:.3g}")

    return rule


def below_base(row: str, others: Sequence[str]) -> Rule:
    """The row, at its own learning rate, ends below the untrained base; above it refutes the collapse.

    Args:
        row: that decides.
        others: settings that are told about: how many of them end below the base (Holm over them).
    """

    def rule(evidence: Evidence) -> Finding:
        d = evidence.against_base(row)
        told = [other for other in others if other in evidence.scores]
        found = [evidence.against_base(other) for other in told]
        adjusted = holm([other.p_value for other in found]) if found else []
        below = [name for name, o, p in zip(told, found, adjusted, strict=True) if verdict(o, p) == "worse"]
        failed = [other for other in others if other not in evidence.scores]
        also = f"; {len(below)} of {len(told)} other settings end below it" if told else ""
        also += f" ({', '.join(below)})" if below else ""
        also += f"; {len(failed)} have no score" if failed else ""
        return Finding.of(_decide(d.high < 0, d.low > 0), d, f"{row} against the untrained base: {d.signed}{also}")

    return rule


def falls_behind(row: str, alike: Sequence[str], reference: str) -> Rule:
    """The row is worse than the reference and not equivalent to it, the others are not; the row equivalent or better refutes it."""

    def rule(evidence: Evidence) -> Finding:
        found = evidence.family([row, *alike], reference)
        word = found[row].matters
        same = all(found[other].matters != "worse" for other in alike)
        told = "; ".join(f"{name} {judged.words}" for name, judged in found.items())
        said = _decide(word == "worse" and same, word in ("better", "equivalent") or not same)
        return Finding.of(said, found[row].difference, f"against {reference}: {told}")

    return rule


def falls_more(row: str, row_small: str, reference: str, reference_small: str) -> Rule:
    """From the small to the large batch the row loses more than the reference does; a loss within the margin refutes it.

    The effect is the difference of the two differences, paired by seed and problem.
    """

    def rule(evidence: Evidence) -> Finding:
        rows = [evidence.of(name) for name in (row, row_small, reference, reference_small)]
        seeds = min(map(len, rows))
        a, a_small, b, b_small = (scores[:seeds] for scores in rows)
        d = seed_problem_difference(b - b_small, a - a_small)
        said = _decide(d.high < 0, d.low >= -evidence.margin)
        told = f"{row} against {row_small}: {paired(a, a_small).signed}; {reference} against {reference_small}: {paired(b, b_small).signed}"
        return Finding.of(said, d, f"{told}; difference {d.signed}, equivalence margin {evidence.margin:.3g}")

    return rule


def best_rate_falls(low: tuple[str, int], high: tuple[str, int]) -> Rule:
    """The best learning rate falls as one over the rank, as far as a lattice of quarter decades tells; equal rates refute it.

    Each of the two rates is known to a quarter of a decade, so their ratio to half a decade.

    Args:
        low: row and rank.
        high: row and rank, a larger one.
    """

    def rule(evidence: Evidence) -> Finding:
        for name, _ in (low, high):
            if name not in evidence.rates:
                raise Missing(f"{name}: {evidence.missing.get(name, 'not run')}")
            if why := evidence.doubt(name, math.inf):
                return Finding("undecided", f"{name}: {why}")
        decades = math.log10(evidence.rates[low[0]] / evidence.rates[high[0]])
        expected = math.log10(high[1] / low[1])
        said = _decide(abs(decades - expected) <= _RATIO_KNOWN, abs(decades) <= _RATIO_KNOWN)
        told = ", ".join(f"rank {rank} {evidence.rates[name]:.2g}" for name, rank in (low, high))
        sentence = f"best rates: {told}, so the rate falls as rank^-{decades / expected:.2g}, known to {_RATIO_KNOWN / expected:.2g}"
        return Finding(said, sentence, decades, decades - _RATIO_KNOWN, decades + _RATIO_KNOWN)

    return rule


def cause_is_direction(
    row: str, control: str, settings: Mapping[tuple[Any, ...], str], factors: Mapping[str, tuple[Any, Any]]
) -> Rule:
    """The directions cost accuracy, and no other factor costs as much.

    A factor's effect is the mean over all settings at its second level minus that at its first, paired by seed and problem;
    Holm over the directions and all factors. Supported: the row is worse than the control of random directions, and no
    factor that is worse costs more. Not supported: the row is not behind the control (better or equivalent), or a factor
    is worse and costs more than the directions do. Undecided otherwise.

    Args:
        row: the method at its own rate.
        control: the same with random directions, at its own rate.
        settings: rows by their levels, in the order of ``factors``.
        factors: both levels of each, the harmless one first.
    """

    def rule(evidence: Evidence) -> Finding:
        direction = evidence.against(row, control)
        effects = {"directions": direction}
        for position, (name, (harmless, suspect)) in enumerate(factors.items()):
            one, other = (
                [label for key, label in settings.items() if key[position] == level] for level in (harmless, suspect)
            )
            if one and other:
                effects[name] = paired(_mean(evidence, other), _mean(evidence, one))
        adjusted = holm([d.p_value for d in effects.values()])
        judged = {
            name: Judged(d, verdict(d, p), equivalent(d, evidence.margin))
            for (name, d), p in zip(effects.items(), adjusted, strict=True)
        }
        said = {name: j.matters for name, j in judged.items()}
        worst = min(
            (d.value for name, d in effects.items() if name != "directions" and said[name] == "worse"), default=0.0
        )
        outdone = worst < min(0.0, direction.value)
        supports = said["directions"] == "worse" and not outdone
        found = _decide(supports, said["directions"] in ("better", "equivalent") or outdone)
        told = "; ".join(f"{name} {j.words}" for name, j in judged.items())
        return Finding.of(found, direction, f"{row} against {control}, and each factor over all settings: {told}")

    return rule


def _mean(evidence: Evidence, rows: Sequence[str]) -> Scores:
    scores = [evidence.of(row) for row in rows]
    seeds = min(len(s) for s in scores)
    return np.mean([s[:seeds] for s in scores], axis=0)


def off_principal(names: Sequence[str]) -> Rule:
    """Each energy ratio in the leading tenth lies below 1; one above 1, or as random, refutes it."""

    def rule(evidence: Evidence) -> Finding:
        found = {name: evidence.ratio(name) for name in names}
        random = [name for name, r in found.items() if r.low > 1 or (r.low >= _RANDOM[0] and r.high <= _RANDOM[1])]
        said = _decide(all(r.high < 1 for r in found.values()) and not random, bool(random))
        name = random[0] if random else max(found, key=lambda n: found[n].high)
        told = "; ".join(f"{n} {r.value:.2f}x [{r.low:.2f}, {r.high:.2f}]" for n, r in found.items())
        return Finding.of(said, found[name], f"energy in the leading 10 % over a random update's: {told}")

    return rule


def ratio_above_one(name: str, other: str = "") -> Rule:
    """A ratio, or the difference of two, lies above 1 (above 0); below refutes it."""

    def rule(evidence: Evidence) -> Finding:
        first = evidence.ratio(name)
        if not other:
            said = _decide(first.low > 1, first.high < 1)
            return Finding.of(said, first, f"{name}: {first.value:.2f}x random [{first.low:.2f}, {first.high:.2f}]")
        evidence.ratio(other)
        pairs = zip(evidence.ratios[name], evidence.ratios[other], strict=True)
        d = over_seeds([a - b for a, b in pairs])
        return Finding.of(_decide(d.low > 0, d.high < 0), d, f"{name} minus {other}, in random updates: {d.signed}")

    return rule


def shares_match(paper: Mapping[str, float], tolerance: float = 0.05) -> Rule:
    """The trained shares that the paper prints are those of seven adapted layers, within a relative tolerance."""

    def rule(evidence: Evidence) -> Finding:
        lacking = [method for method in paper if method not in evidence.shares]
        if lacking:
            raise Missing(f"{lacking[0]}: not counted")
        off = {m: evidence.shares[m] / share for m, share in paper.items()}
        worst = max(off, key=lambda m: abs(math.log(off[m])))
        said = _decide(all(abs(x - 1) <= tolerance for x in off.values()), True)
        told = "; ".join(f"{m} {paper[m]:g} % printed, {evidence.shares[m]:.3g} % counted" for m in paper)
        return Finding(said, f"seven layers, rank as stated: {told}", off[worst])

    return rule


def not_run(reason: str) -> Rule:
    """A claim that this scale cannot test."""
    return lambda evidence: Finding("undecided", reason)

"""What the bundled tiny model is taught: chain sums worked in several styles, some of them with slips."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlvr_lite.tasks import Chain, ChainSum, Problem, draw_chain

__all__ = ["Lessons", "draw_lesson", "write_solution"]

_TASK = ChainSum()


@dataclass(frozen=True)
class Lessons:
    """A mixture of worked answers.

    Attributes:
        styles: weight of each way of working. ``step`` writes one operation a line, ``skip`` often two at once,
            ``direct`` only the answer.
        slip: chance that a number written down is a little wrong.
        operands: weight of each length of chain.
    """

    styles: Mapping[str, float]
    slip: float
    operands: Mapping[int, float] = field(
        default_factory=lambda: {2: 0.15, 3: 0.20, 4: 0.25, 5: 0.25, 6: 0.10, 7: 0.05}
    )


def _slipped(rng: random.Random, total: int) -> int:
    size = rng.choices((10, 1, 2, 20), (0.5, 0.35, 0.1, 0.05))[0]
    return max(0, total + rng.choice((-size, size)))


def write_solution(rng: random.Random, chain: Chain, style: str, slip: float) -> str:
    r"""A worked answer that ends in ``\boxed{}``; after a slip it goes on from the wrong total.

    >>> print(write_solution(random.Random(0), Chain((3, 4, 2), "+-"), "step", slip=0))
    3+4=7
    7-2=5
    \boxed{5}
    """
    lines, total, done = [], chain.numbers[0], 0
    while done < len(chain.operators):
        left = len(chain.operators) - done
        take = {"step": 1, "direct": left, "skip": 2 if left > 1 and rng.random() < 0.7 else 1}[style]
        line = str(total)
        for place in range(done, done + take):
            operator, number = chain.operators[place], chain.numbers[place + 1]
            line += f"{operator}{number}"
            total += number if operator == "+" else -number
        total = max(0, total)  # a slip may have left too little to subtract from
        if rng.random() < slip:
            total = _slipped(rng, total)
        if style != "direct":
            lines.append(f"{line}={total}")
        done += take
    return "\n".join([*lines, f"\\boxed{{{total}}}"])


def draw_lesson(rng: random.Random, lessons: Lessons) -> tuple[Problem, str]:
    """A problem of the train share, of any length, and a worked answer to it."""
    lengths, styles = list(lessons.operands), list(lessons.styles)
    while True:
        length = rng.choices(lengths, list(lessons.operands.values()))[0]
        chain = draw_chain(rng, length, _TASK.hi, _TASK.cap)
        if _TASK.split_of(chain.question) == "train":
            break
    style = rng.choices(styles, list(lessons.styles.values()))[0]
    problem = Problem(chain.question, chain.question, str(chain.totals[-1]))
    return problem, write_solution(rng, chain, style, lessons.slip)

"""``linear-equation``: one unknown, one whole-number solution.

The second generated family is this and not Countdown, because Countdown has many right expressions for one target:
a reward that compares final answers would mark most of them wrong. An equation has one solution.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rlvr_lite.tasks._generated import GeneratedTask, whole_number

__all__ = ["LinearEquation"]


def _term(number: int) -> str:
    return f" {'+' if number > 0 else '-'} {abs(number)}"


@dataclass(frozen=True, init=False)
class LinearEquation(GeneratedTask):
    """Solve ``a x + b = c`` for a whole x; the ``ood`` split has x on both sides.

    Args:
        coefficient: the largest coefficient of x; the smallest is 2.
        constant: the largest size of b.
        solution: the largest size of x.

    >>> LinearEquation().problems("test", 1)[0].prompt
    'Solve for x: 5x + 6 = -44'
    """

    coefficient: int
    constant: int
    solution: int

    name = "linear-equation"
    max_completion_length = 128
    instruction: ClassVar[str] = "Solve the equation step by step, and put the value of x alone in \\boxed{}."
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("Solve for x: 3x + 4 = 19", "3x = 19 - 4 = 15\nx = 15 / 3 = 5\n\\boxed{5}"),
        ("Solve for x: 2x - 3 = -7", "2x = -7 + 3 = -4\nx = -4 / 2 = -2\n\\boxed{-2}"),
    )

    def __init__(self, coefficient: int = 9, constant: int = 20, solution: int = 12):
        object.__setattr__(self, "coefficient", whole_number("coefficient", coefficient, 3))
        object.__setattr__(self, "constant", whole_number("constant", constant, 1))
        object.__setattr__(self, "solution", whole_number("solution", solution, 1))

    def stream(self, rng: random.Random, *, ood: bool) -> Iterator[tuple[str, str]]:
        """See :class:`GeneratedTask`."""
        while True:
            x = rng.randrange(2 * self.solution + 1) - self.solution
            left = rng.randrange(self.coefficient - 1) + 2
            constant = (rng.randrange(self.constant) + 1) * (1, -1)[rng.randrange(2)]
            if not ood:
                yield f"Solve for x: {left}x{_term(constant)} = {left * x + constant}", str(x)
                continue
            right = rng.randrange(self.coefficient - 1) + 2
            rest = (left - right) * x + constant
            if right != left and rest:  # equal coefficients would leave x free or impossible
                yield f"Solve for x: {left}x{_term(constant)} = {right}x{_term(rest)}", str(x)

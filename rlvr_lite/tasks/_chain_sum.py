"""``chain-sum``: sums and differences read from left to right, the task of the bundled tiny model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rlvr_lite.errors import UserError
from rlvr_lite.tasks._generated import GeneratedTask, whole_number, whole_numbers

__all__ = ["ChainSum"]


@dataclass(frozen=True)
class Chain:
    """``numbers[0] operators[0] numbers[1] ...``, with every running total in range."""

    numbers: tuple[int, ...]
    operators: str

    @property
    def totals(self) -> tuple[int, ...]:
        """The running total after each number."""
        total, totals = self.numbers[0], [self.numbers[0]]
        for operator, number in zip(self.operators, self.numbers[1:], strict=True):
            total += number if operator == "+" else -number
            totals.append(total)
        return tuple(totals)

    @property
    def question(self) -> str:
        """The text, such as ``3+4-2=?``."""
        rest = "".join(o + str(n) for o, n in zip(self.operators, self.numbers[1:], strict=True))
        return f"{self.numbers[0]}{rest}=?"


def draw_chain(rng: random.Random, operands: int, hi: int, cap: int) -> Chain:
    """A chain of numbers in 1..hi whose every running total lies in 0..cap."""
    total = rng.randrange(hi) + 1
    numbers, operators = [total], ""
    while len(numbers) < operands:
        number = rng.randrange(hi) + 1
        allowed = ("+" if total + number <= cap else "") + ("-" if total >= number else "")
        if allowed:
            operator = allowed[rng.randrange(len(allowed))]
            total += number if operator == "+" else -number
            numbers.append(number)
            operators += operator
    return Chain(tuple(numbers), operators)


@dataclass(frozen=True, init=False)
class ChainSum(GeneratedTask):
    """Sums and differences of a few numbers, such as ``3+4-2=?``, whose totals never leave 0..cap.

    Args:
        operands: how many numbers, one of these each time.
        hi: the largest number.
        cap: the largest running total.
        ood_operands: lengths of the ``ood`` split; by default the two lengths above the longest of ``operands``.

    >>> ChainSum().problems("test", 1)[0].prompt.endswith("=?")
    True
    """

    operands: tuple[int, ...]
    hi: int
    cap: int
    ood_operands: tuple[int, ...]

    name = "chain-sum"
    instruction: ClassVar[str] = (
        "Work out each sum step by step, from left to right, and put the final answer in \\boxed{}."
    )
    examples: ClassVar[tuple[tuple[str, str], ...]] = (
        ("5+2=?", "5+2=7. \\boxed{7}"),
        ("9-4=?", "9-4=5. \\boxed{5}"),
    )

    def __init__(
        self,
        operands: int | str | Sequence[int] = (4, 5),
        hi: int = 9,
        cap: int = 99,
        ood_operands: int | str | Sequence[int] | None = None,
    ):
        lengths = whole_numbers("operands", operands, 2)
        harder = (max(lengths) + 1, max(lengths) + 2) if ood_operands is None else ood_operands
        object.__setattr__(self, "operands", lengths)
        object.__setattr__(self, "hi", whole_number("hi", hi, 1))
        object.__setattr__(self, "cap", whole_number("cap", cap, 1))
        object.__setattr__(self, "ood_operands", whole_numbers("ood_operands", harder, 2))
        if self.cap < self.hi:
            raise UserError(f"cap ({self.cap}) must be at least hi ({self.hi}): totals start with one number")

    @property
    def max_completion_length(self) -> int:  # type: ignore[override]
        """One character a token: a line ``total+number=total`` an operator, then the boxed answer."""
        line = 2 * len(str(self.cap)) + len(str(self.hi)) + len("+=\n")
        return (max(*self.operands, *self.ood_operands) - 1) * line + len(str(self.cap)) + 6

    def stream(self, rng: random.Random, *, ood: bool) -> Iterator[tuple[str, str]]:
        """See :class:`GeneratedTask`."""
        lengths = self.ood_operands if ood else self.operands
        while True:
            chain = draw_chain(rng, lengths[rng.randrange(len(lengths))], self.hi, self.cap)
            yield chain.question, str(chain.totals[-1])

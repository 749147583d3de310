"""Which answers are drawn together: like lengths side by side, and no more rows than the cache has room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlvr_lite.analysis.memory import last_growth

__all__ = ["Batch", "plan_batches"]


@dataclass(frozen=True)
class Batch:
    """Answers ``start`` to ``stop`` (exclusive) of each of some problems, given by their positions."""

    problems: tuple[int, ...]
    start: int
    stop: int

    def halves(self) -> tuple[Batch, ...]:
        """The same work as two smaller batches; one if it is a single answer."""
        if len(self.problems) > 1:
            middle = len(self.problems) // 2
            parts = (self.problems[:middle], self.problems[middle:])
            return tuple(Batch(part, self.start, self.stop) for part in parts)
        if self.stop - self.start > 1:
            middle = (self.start + self.stop) // 2
            return (Batch(self.problems, self.start, middle), Batch(self.problems, middle, self.stop))
        return (self,)


def plan_batches(lengths: Sequence[int], k: int, longest: int, room: int, max_rows: int = 256) -> Iterator[Batch]:
    """Every one of the k answers to every problem, once.

    Args:
        lengths: prompt tokens of each problem.
        k: answers a problem.
        longest: most new tokens an answer may have.
        room: tokens that the key-value cache may hold; an answer takes what its cache has room for after its last growth
            (``analysis.memory.last_growth``), and a batch has at least one whatever it costs.
        max_rows: most answers in a batch.

    >>> list(plan_batches([5, 3, 5], k=2, longest=5, room=280))
    [Batch(problems=(1, 0), start=0, stop=2), Batch(problems=(2,), start=0, stop=2)]
    """
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    at = 0
    while at < len(order):

        def rows(end: int) -> int:
            """Answers that fit if the problem at ``end - 1``, the longest so far, is the last of the batch."""
            return max(1, min(max_rows, room // last_growth(lengths[order[end - 1]], longest)[1]))

        end = at + 1
        if rows(end) < k:
            step = rows(end)
            for start in range(0, k, step):
                yield Batch((order[at],), start, min(k, start + step))
        else:
            while end < len(order) and (end + 1 - at) * k <= rows(end + 1):
                end += 1
            yield Batch(tuple(order[at:end]), 0, k)
        at = end

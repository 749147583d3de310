"""Which completions are sampled together: like lengths side by side, and no more rows than the cache has room for."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from rlvr_lite.analysis.memory import last_growth
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError

if TYPE_CHECKING:
    from rlvr_lite.sampling._sampler import Sampler, Samples
    from rlvr_lite.sampling._text import Messages

__all__ = ["Portion", "even_portions", "joined", "plan_portions", "sample_portions"]


@dataclass(frozen=True)
class Portion:
    """Completions ``start`` to ``stop`` (exclusive) of each of some prompts, given by their positions."""

    prompts: tuple[int, ...]
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.prompts) * (self.stop - self.start)

    def halves(self) -> tuple[Portion, ...]:
        """The same work as two smaller portions; one if it is a single completion."""
        if len(self.prompts) > 1:
            middle = len(self.prompts) // 2
            parts = (self.prompts[:middle], self.prompts[middle:])
            return tuple(Portion(part, self.start, self.stop) for part in parts)
        if self.stop - self.start > 1:
            middle = (self.start + self.stop) // 2
            return (Portion(self.prompts, self.start, middle), Portion(self.prompts, middle, self.stop))
        return (self,)


def plan_portions(lengths: Sequence[int], k: int, longest: int, room: int, max_rows: int = 256) -> Iterator[Portion]:
    """Every one of the k completions of every prompt, once.

    Args:
        lengths: tokens of each prompt.
        k: completions a prompt.
        longest: most new tokens a completion may have.
        room: tokens that the key-value cache may hold; a completion takes what its cache has room for after its last
            growth (``analysis.memory.last_growth``), and a portion has at least one whatever it costs.
        max_rows: most completions in a portion.

    >>> list(plan_portions([5, 3, 5], k=2, longest=5, room=280))
    [Portion(prompts=(1, 0), start=0, stop=2), Portion(prompts=(2,), start=0, stop=2)]
    """
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    at = 0
    while at < len(order):

        def rows(end: int) -> int:
            """Completions that fit if the prompt at ``end - 1``, the longest so far, is the last of the portion."""
            return max(1, min(max_rows, room // last_growth(lengths[order[end - 1]], longest)[1]))

        end = at + 1
        if rows(end) < k:
            step = rows(end)
            for start in range(0, k, step):
                yield Portion((order[at],), start, min(k, start + step))
        else:
            while end < len(order) and (end + 1 - at) * k <= rows(end + 1):
                end += 1
            yield Portion(tuple(order[at:end]), 0, k)
        at = end


def even_portions(prompts: int, k: int, rows: int | None) -> list[Portion]:
    """Every one of the k completions of every prompt in order, at most ``rows`` together; ``None`` takes all at once.

    >>> even_portions(3, 2, 4)
    [Portion(prompts=(0, 1), start=0, stop=2), Portion(prompts=(2,), start=0, stop=2)]
    >>> even_portions(1, 3, 2)
    [Portion(prompts=(0,), start=0, stop=2), Portion(prompts=(0,), start=2, stop=3)]
    """
    if rows is not None and rows < k:
        return [Portion((p,), i, min(i + rows, k)) for p in range(prompts) for i in range(0, k, rows)]
    step = prompts if rows is None else rows // k
    return [Portion(tuple(range(p, min(p + step, prompts))), 0, k) for p in range(0, prompts, max(step, 1))]


def sample_portions(
    sampler: Sampler,
    portions: Iterable[Portion],
    prompts: Sequence[Messages],
    k: int,
    config: SamplingConfig,
    keys: Sequence[int],
    *,
    on_halved: Callable[[int], None] | None = None,
) -> Iterator[tuple[Portion, Samples]]:
    """Sample one portion after the other; one that does not fit in memory is halved until it does.

    Every completion draws from its own key, so the split changes no sample. The policy must not change until the last.

    Args:
        sampler: who samples.
        portions: what is sampled together, such as ``sampler.portions(...)``.
        prompts: P chats or texts.
        k: completions a prompt.
        config: how they are drawn.
        keys: P*k 64-bit keys, the k of a prompt next to each other.
        on_halved: told the most completions that are tried together from now on, once more did not fit.

    Yields:
        What was sampled, prompt by prompt, and its samples.

    Raises:
        UserError: a single completion does not fit in memory.
    """
    with sampler.prepared():
        queue, most = deque(portions), math.inf
        while queue:
            portion = queue.popleft()
            if len(portion) > most:
                queue.extendleft(reversed(portion.halves()))
                continue
            count = portion.stop - portion.start
            own = [keys[p * k + i] for p in portion.prompts for i in range(portion.start, portion.stop)]
            try:
                samples = sampler.sample([prompts[p] for p in portion.prompts], count, config, own)
            except torch.OutOfMemoryError:
                halves = portion.halves()
                if len(halves) == 1:
                    raise UserError(
                        f"one completion of {config.max_completion_length} tokens does not fit in memory: lower its length "
                        "(max_completion_length), or load the base with --precision nf4"
                    ) from None
            else:
                yield portion, samples
                continue
            torch.cuda.empty_cache()  # only here have the tensors of the broken attempt gone
            most = max(map(len, halves))
            if on_halved is not None:
                on_halved(int(most))
            queue.extendleft(reversed(halves))


def joined(parts: Sequence[tuple[Portion, Samples]], k: int, pad_id: int) -> Samples:
    """The samples of several portions as one, in the order of the prompts, padded to the longest."""
    places = [at * k + i for portion, _ in parts for at in portion.prompts for i in range(portion.start, portion.stop)]
    order = sorted(range(len(places)), key=places.__getitem__)
    width = max(samples.ids.shape[1] for _, samples in parts)

    def column(name: str, fill: float) -> torch.Tensor:
        rows = [getattr(samples, name) for _, samples in parts]
        return torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[1]), value=fill) for row in rows])[order]

    texts = [text for _, samples in parts for text in samples.texts]
    ended = torch.cat([samples.ended for _, samples in parts])[order]
    shown = [prompt for _, samples in parts for prompt in samples.prompts]
    return replace(
        parts[0][1],
        ids=column("ids", pad_id),
        mask=column("mask", 0),
        logprobs=column("logprobs", 0),
        texts=[texts[i] for i in order],
        ended=ended,
        prompts=[shown[i] for i in order] if len(shown) == len(order) else (),
    )

"""One more token of every row: with a cache that grows, or on buffers of a fixed place and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

from rlvr_lite.analysis.memory import fixed_room
from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import OutputHead, feed
from rlvr_lite.sampling._cache import released
from rlvr_lite.sampling._choice import choose
from rlvr_lite.sampling._graphs import Graphs

__all__ = ["FixedStep", "GrowingStep", "RecomputingStep", "fixed_cache", "next_hidden"]

_SLACK = 8  # finished rows are taken out once they are at least 1 in so many: copying the cache is not free
_SHARES = 4  # numbers of rows between two powers of two that have a graph of their own


def next_hidden(head: OutputHead, token: Tensor, seen: Tensor | None, position: Tensor, cache: Cache) -> Tensor:
    """Hidden states ``[B, H]`` at one more token of each row, which joins the cache.

    Args:
        head: the model, taken apart.
        token: int64 ``[B]``.
        seen: mask ``[B, T + 1]`` of the tokens cached and of this one, or ``[B, 1, 1, T + 1]`` in booleans, which
            transformers takes as it is; ``None`` where there is no padding.
        position: int64 ``[B, 1]`` of this token.
        cache: keys and values of T tokens.
    """
    return feed(head.backbone, token[:, None], seen, position, past_key_values=cache, use_cache=True)[:, -1]


class GrowingStep:
    """Reads a token of each row into a cache that grows, and draws the next.

    Args:
        head: the model, taken apart.
        sampling: temperature, top_p, top_k, min_p, max_completion_length.
        cache: of the prompts, a row each.
        mask: ``[R, T]``, 1 at prompt tokens.
        position: int64 ``[R, 1]`` of the last token of each prompt.
        own_mask: whether the model takes booleans ``[R, 1, 1, T]``, and none where no row is padded.
        leave: whether rows can be taken out of the cache.
    """

    def __init__(
        self,
        head: OutputHead,
        sampling: SamplingConfig,
        cache: DynamicCache,
        mask: Tensor,
        position: Tensor,
        *,
        own_mask: bool,
        leave: bool,
    ):
        self._head, self._sampling, self._cache = head, sampling, cache
        self._own_mask, self._leave, self._filled = own_mask, leave, mask.shape[1]
        seen = torch.cat([mask, mask.new_ones(len(mask), sampling.max_completion_length)], -1)
        self._seen = seen.bool() if own_mask else seen
        self._padded = (mask == 0).any(-1).tolist() if own_mask else []
        self._position = position

    def __call__(self, token: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tokens ``[R]`` that follow and their log-probabilities."""
        self._filled += 1
        self._position = self._position + 1
        shown: Tensor | None = self._seen[:, : self._filled]
        if self._own_mask:
            shown = self._seen[:, None, None, : self._filled] if any(self._padded) else None
        hidden = next_hidden(self._head, token, shown, self._position, self._cache)
        return choose(self._head.logits(hidden), uniform, self._sampling)

    def leaving(self, alive: Sequence[bool]) -> list[int] | None:
        """The rows to go on with; ``None`` for all."""
        return _living(alive) if self._leave else None

    def keep(self, rows: Sequence[int], at: Tensor) -> None:
        """Go on with the given rows, on the host and on the device."""
        self._cache.reorder_cache(at)
        self._seen, self._position = self._seen[at], self._position[at]
        self._padded = [self._padded[i] for i in rows] if self._own_mask else []


class RecomputingStep:
    """Reads everything anew for each token, of models without a cache that can be trusted.

    Args:
        head: the model, taken apart.
        sampling: temperature, top_p, top_k, min_p, max_completion_length.
        ids: int64 ``[R, T]`` of the prompts.
        mask: ``[R, T]``, 1 at prompt tokens.
        position: int64 ``[R, T]``.
    """

    def __init__(self, head: OutputHead, sampling: SamplingConfig, ids: Tensor, mask: Tensor, position: Tensor):
        self._head, self._sampling = head, sampling
        self._ids, self._mask, self._position = ids, mask, position

    def __call__(self, token: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tokens ``[R]`` that follow and their log-probabilities."""
        self._ids = torch.cat([self._ids, token[:, None]], -1)
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], -1)
        self._position = torch.cat([self._position, self._position[:, -1:] + 1], -1)
        hidden = feed(self._head.backbone, self._ids, self._mask, self._position)[:, -1]
        return choose(self._head.logits(hidden), uniform, self._sampling)

    def leaving(self, alive: Sequence[bool]) -> list[int] | None:
        """The rows to go on with; ``None`` for all."""
        return _living(alive)

    def keep(self, rows: Sequence[int], at: Tensor) -> None:
        """Go on with the given rows."""
        self._ids, self._mask, self._position = (x[at] for x in (self._ids, self._mask, self._position))


def _living(alive: Sequence[bool]) -> list[int] | None:
    left = [i for i, lives in enumerate(alive) if lives]
    return left if len(alive) - len(left) >= max(1, len(alive) // _SLACK) else None


def _rows(alive: int) -> int:
    """The number of rows that are computed for so many living ones.

    >>> [_rows(n) for n in (1, 5, 9, 33, 41, 64)]
    [1, 5, 10, 40, 48, 64]
    """
    unit = max(1, (1 << (alive - 1).bit_length()) // 2 // _SHARES)
    return -(-alive // unit) * unit


class _FixedLayer(CacheLayerMixin):
    """Keys and values ``[R, heads, room, head_dim]``; what is shown of them is chosen before a call.

    Args:
        states: keys and values ``[P, heads, T, head_dim]`` of the prompts.
        shared: int64 ``[R]``, the prompt of each row.
        room: slots.
        slot: int64 ``[1]``, where the next token goes.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, states: tuple[Tensor, Tensor], shared: Tensor, room: int, slot: Tensor):
        super().__init__()
        self.buffers = [x.new_zeros(len(shared), x.shape[1], room, x.shape[3]) for x in states]  # 0 x nothing is 0
        for buffer, state in zip(self.buffers, states, strict=True):
            torch.index_select(state, 0, shared, out=buffer[:, :, : state.shape[2]])
        self._slot, self.is_initialized = slot, True
        self.show(len(shared), room)

    def show(self, rows: int, width: int) -> None:
        """Of all rows and slots so many."""
        self.keys, self.values = (x[:rows, :, :width] for x in self.buffers)

    def keep(self, kept: Tensor, filled: int) -> None:
        """The given rows are the first ones from now on."""
        for buffer in self.buffers:
            buffer[: len(kept), :, :filled] = buffer[kept, :, :filled]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put one token in its slot and return what is shown."""
        assert self.keys is not None
        assert self.values is not None
        self.keys.index_copy_(2, self._slot, key_states)
        self.values.index_copy_(2, self._slot, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """What is shown, from the first slot on; the mask is handed over ready."""
        return self.get_max_length(), 0

    def get_seq_length(self) -> int:
        """Unknown to the host, and asked by nobody who is given mask and positions."""
        return 0

    def get_max_length(self) -> int:
        """Slots that are shown."""
        assert self.keys is not None
        return self.keys.shape[2]


def fixed_cache(cache: DynamicCache, shared: Tensor, room: int, slot: Tensor) -> Cache:
    """A cache ``[R, heads, room, head_dim]`` that starts with what another holds, which gives it up.

    Args:
        cache: of the prompts, of :func:`growing_cache`.
        shared: int64 ``[R]``, the prompt of each row.
        room: slots.
        slot: int64 ``[1]``, where the next token goes; read at every call.
    """
    return Cache(layers=[_FixedLayer(released(layer), shared, room, slot) for layer in cache.layers])


class FixedStep:
    """Reads a token of each row and draws the next, in place: nothing waits for the device, and nothing moves.

    There is one shape, and on a GPU one CUDA graph, for each number of rows (:func:`_rows`) and each multiple of 128 slots
    that attention looks at. Numbers are those of a growing cache but for the rounding of products over other widths.

    Args:
        head: the model, taken apart.
        sampling: temperature, top_p, top_k, min_p, max_completion_length.
        cache: of the prompts; emptied.
        mask: ``[P, T]``, 1 at prompt tokens.
        position: int64 ``[P, 1]`` of the last token of each prompt.
        shared: int64 ``[R]``, the prompt of each row.
    """

    def __init__(
        self,
        head: OutputHead,
        sampling: SamplingConfig,
        cache: DynamicCache,
        mask: Tensor,
        position: Tensor,
        shared: Tensor,
    ):
        self._head, self._sampling, self._filled = head, sampling, mask.shape[1]
        rows, room = len(shared), fixed_room(self._filled, sampling.max_completion_length)
        self._slot = torch.full((1,), self._filled, device=shared.device)
        self._cache = fixed_cache(cache, shared, room, self._slot)
        self._seen = torch.zeros(rows, 1, 1, room, dtype=torch.bool, device=shared.device)
        self._seen[:, 0, 0, : self._filled] = mask.bool()[shared]
        self._position = position[shared]
        self._token = torch.zeros(rows, dtype=torch.long, device=shared.device)
        self._logprob = torch.zeros(rows, device=shared.device)
        self._uniform = torch.zeros(rows, dtype=torch.float64, device=shared.device)
        self._run = Graphs(self._step, head.causal_lm, shared.device)

    def __call__(self, token: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tokens ``[R]`` that follow and their log-probabilities."""
        rows, self._filled = len(token), self._filled + 1
        self._token[:rows] = token
        if uniform is not None:
            self._uniform[:rows] = uniform
        self._run(rows, fixed_room(self._filled, 1))
        return self._token[:rows].clone(), self._logprob[:rows].clone()

    def _step(self, rows: int, width: int) -> None:
        for layer in self._cache.layers:
            layer.show(rows, width)
        position, seen, token = self._position[:rows], self._seen[:rows], self._token[:rows]
        position.add_(1)
        seen.index_fill_(3, self._slot, True)
        hidden = next_hidden(self._head, token, seen[..., :width], position, self._cache)
        found, logprob = choose(self._head.logits(hidden), self._uniform[:rows], self._sampling)
        token.copy_(found)
        self._logprob[:rows].copy_(logprob)
        self._slot.add_(1)

    def leaving(self, alive: Sequence[bool]) -> list[int] | None:
        """The rows to go on with: all that live, and ended ones up to a number that has a shape; ``None`` for all."""
        left = [i for i, lives in enumerate(alive) if lives]
        more = _rows(len(left)) - len(left)
        if len(left) + more >= len(alive):
            return None
        ended = [i for i, lives in enumerate(alive) if not lives]
        return sorted(left + ended[:more])

    def keep(self, rows: Sequence[int], at: Tensor) -> None:
        """Go on with the given rows, which become the first of the buffers."""
        for layer in self._cache.layers:
            layer.keep(at, self._filled)
        for buffer in (self._seen, self._position):
            buffer[: len(at)] = buffer[at]

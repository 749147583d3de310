"""How a model may be sampled: found out once by comparing each way with a full forward pass of every row alone."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from rlvr_lite.errors import UserError, kind_and_line
from rlvr_lite.grpo import OutputHead, cache_name, eval_mode, feed, output_head
from rlvr_lite.sampling._cache import growing_cache, takes_own_mask
from rlvr_lite.sampling._step import fixed_cache, next_hidden

__all__ = ["Way", "is_fixed", "way"]

#: ``shared``: each prompt is read once and its cache repeated; ``rows``: each row reads its prompt and keeps its place;
#: ``recomputed``: no cache, every token costs a full forward pass.
Way = Literal["shared", "rows", "recomputed"]

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative, of hidden states
_HALF_TOLERANCE = 0.1
_PROMPTS = ((5, 9, 6), (7, 8, 5, 9, 6, 7))
_NEXT = ((8, 6), (9, 5), (6, 9), (5, 7))  # two tokens for each of the four rows
_FOUND: weakref.WeakKeyDictionary[nn.Module, Way] = weakref.WeakKeyDictionary()
_FIXED: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
_LOG = logging.getLogger(__name__)


def way(model: nn.Module) -> Way:
    """The fastest way of sampling from this model that is exact; what it cannot do is logged once.

    Raises:
        UserError: its hidden states change with the padding of a batch, so that no batch of it can be scored.
    """
    head = output_head(model)
    if head.causal_lm not in _FOUND:
        with eval_mode(model), torch.no_grad():
            _FOUND[head.causal_lm] = _find(head)
    return _FOUND[head.causal_lm]


def is_fixed(model: nn.Module) -> bool:
    """Whether a model that is sampled ``shared`` can be on buffers of a fixed place; what forbids it is logged once."""
    head = output_head(model)
    if head.causal_lm not in _FIXED:
        with eval_mode(model), torch.no_grad():
            why = "its attention looks at something other than a mask over its whole cache"
            if takes_own_mask(head.backbone, growing_cache(head.backbone.config)):
                expected = _alone(head)
                why = _apart(_in_place, head, expected) or "" if expected.isfinite().all() else ""
        _FIXED[head.causal_lm] = not why
        if why:
            kind = type(head.causal_lm).__name__
            _LOG.warning("%s: no CUDA graph of its decoding step (%s): sampling launches every operator", kind, why)
    return _FIXED[head.causal_lm]


def _find(head: OutputHead) -> Way:
    backbone, kind = head.backbone, type(head.causal_lm).__name__
    expected = _alone(head)
    if not expected.isfinite().all():
        return "shared"  # the rollout says where that comes from
    apart = _apart(_padded, head, expected)
    if apart is not None:
        raise UserError(
            f"what {kind} says of a token changes with the padding of a batch or with what follows ({apart}): choose "
            "another base"
        )
    why = "its forward takes no cache"
    if cache_name(backbone) is not None:
        why = _apart(_shared, head, expected) or ""
        if not why:
            return "shared"
        if _apart(_rows, head, expected) is None:
            _LOG.warning("%s: its cache cannot be repeated (%s): every completion reads its prompt anew", kind, why)
            return "rows"
    _LOG.warning("%s is sampled without a cache (%s): exact, but every token costs a full forward pass", kind, why)
    return "recomputed"


Seen = list[tuple[int, list[int], Tensor]]  # after that many tokens of a completion, of these rows, hidden states


def _apart(found: Callable[[OutputHead], Seen], head: OutputHead, expected: Tensor) -> str | None:
    """Why a way is not exact; ``None`` if it is."""
    try:
        seen = found(head)
        states = torch.cat([hidden.float() for _, _, hidden in seen])
        alone = torch.cat([expected[step, rows] for step, rows, _ in seen])
        difference = float((states - alone).norm() / alone.norm().clamp(min=1e-9))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # caches of other makers fail in any way
        return kind_and_line(error)
    device = head.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    return None if difference <= _TOLERANCE.get(dtype, _HALF_TOLERANCE) else f"hidden states differ by {difference:.2g}"


def _ids(head: OutputHead, tokens: Sequence[int]) -> Tensor:
    return torch.tensor([tokens], device=head.weight.device) % head.weight.shape[0]


def _alone(head: OutputHead) -> Tensor:
    """Hidden states ``[3, 4, H]`` after the prompt, one and two tokens, of each row by itself and without what follows."""
    states = []
    for step in range(3):
        for row, following in enumerate(_NEXT):
            ids = _ids(head, _PROMPTS[row // 2] + following[:step])
            position = torch.arange(ids.shape[1], device=ids.device)[None]
            states.append(feed(head.backbone, ids, torch.ones_like(ids), position)[0, -1])
    return torch.stack(states).unflatten(0, (3, 4)).float()


def _prompts(head: OutputHead) -> tuple[Tensor, Tensor, Tensor]:
    width = max(map(len, _PROMPTS))
    ids = torch.cat([_ids(head, (0,) * (width - len(p)) + p) for p in _PROMPTS])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in _PROMPTS], device=ids.device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def _padded(head: OutputHead) -> Seen:
    ids, mask, position = (x.repeat_interleave(2, 0) for x in _prompts(head))
    after = torch.cat([_ids(head, tokens) for tokens in _NEXT])
    more = position[:, -1:] + torch.arange(1, 3, device=ids.device)
    mask, position = torch.cat([mask, torch.ones_like(after)], 1), torch.cat([position, more], 1)
    hidden = feed(head.backbone, torch.cat([ids, after], 1), mask, position)[:, -3:]
    return [(step, [0, 1, 2, 3], hidden[:, step]) for step in range(3)]


def _shared(head: OutputHead) -> Seen:
    """One prompt for two rows each; then the first row leaves, then the second."""
    ids, mask, position = _prompts(head)
    cache = growing_cache(head.backbone.config)
    seen: Seen = [(0, [0, 2], feed(head.backbone, ids, mask, position, past_key_values=cache, use_cache=True)[:, -1])]
    rows, position = [0, 1, 2, 3], position[:, -1:]
    kept = torch.tensor([0, 0, 1, 1], device=ids.device)
    for step in range(2):
        cache.reorder_cache(kept)
        mask, position = mask[kept], position[kept] + 1
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        token = torch.cat([_ids(head, _NEXT[row][step : step + 1]) for row in rows])
        hidden = feed(head.backbone, token, mask, position, past_key_values=cache, use_cache=True)[:, -1]
        seen.append((step + 1, rows, hidden))
        kept, rows = torch.arange(1, len(rows), device=ids.device), rows[1:]
    return seen


def _in_place(head: OutputHead) -> Seen:
    """As :func:`_shared`, on a fixed cache from which no row leaves."""
    ids, mask, position = _prompts(head)
    growing, filled, rows = growing_cache(head.backbone.config), ids.shape[1], [0, 1, 2, 3]
    hidden = feed(head.backbone, ids, mask, position, past_key_values=growing, use_cache=True)[:, -1]
    seen: Seen = [(0, [0, 2], hidden)]
    shared = torch.arange(4, device=ids.device) // 2
    slot = torch.full((1,), filled, device=ids.device)
    cache = fixed_cache(growing, shared, filled + 4, slot)
    shown = torch.zeros(4, 1, 1, filled + 4, dtype=torch.bool, device=ids.device)
    shown[:, 0, 0, :filled] = mask.bool()[shared]
    for step in range(2):
        shown[..., filled + step] = True
        token = torch.cat([_ids(head, tokens[step : step + 1]) for tokens in _NEXT])[:, 0]
        hidden = next_hidden(head, token, shown, position[shared, -1:] + step + 1, cache)
        seen.append((step + 1, rows, hidden))
        slot += 1
    return seen


def _rows(head: OutputHead) -> Seen:
    ids, mask, position = (x.repeat_interleave(2, 0) for x in _prompts(head))
    cache = growing_cache(head.backbone.config)
    rows, after = [0, 1, 2, 3], torch.cat([_ids(head, tokens) for tokens in _NEXT])
    seen: Seen = [(0, rows, feed(head.backbone, ids, mask, position, past_key_values=cache, use_cache=True)[:, -1])]
    for step in range(2):
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        place, token = position[:, -1:] + step + 1, after[:, step : step + 1]
        seen.append(
            (step + 1, rows, feed(head.backbone, token, mask, place, past_key_values=cache, use_cache=True)[:, -1])
        )
    return seen

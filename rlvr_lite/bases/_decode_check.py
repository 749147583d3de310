"""The proof, on the model at hand, that decoding from the cache is the policy that is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from rlvr_lite.errors import UserError
from rlvr_lite.grpo import eval_mode, feed, output_head

__all__ = ["check_decode", "decode_difference"]

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
_SHARE = 0.5  # of the movement that decoding may miss: rounding in 16 bits, where it would miss all of it
_NOISE = (0.02, 0.1, 0.5, 2.5)  # taken in turn until the adapter moves the hidden states far beyond rounding
_LEAST_MOVED = 0.3
_MOST_NUMBERS = 50_000_000  # that are shaken at all
_MASK = ((1, 1, 1, 1, 1, 1), (0, 0, 1, 1, 1, 1))
_PREFIX = 4


def check_decode(model: nn.Module) -> None:
    """Compare cached decoding and the training pass with a full forward pass, then again with the adapter shaken.

    Two short prompts, one of them padded; the adapter and all random states are as before afterwards.

    Args:
        model: a causal language model with an adapter, or one whose own weights are trained.

    Raises:
        UserError: decoding is not the full forward pass, or does not follow the adapter.
    """
    still = _states(model)
    _refuse_if_apart(still, "as attached")
    moved = still
    for noise in _NOISE:
        with _shaken(model, noise):
            moved = _states(model)
        if _relative(moved["full"], still["full"]) >= _LEAST_MOVED:
            break
    else:
        raise UserError("the full forward pass does not follow the adapter on this base: take backend transformers")
    _refuse_if_apart(moved, "with the adapter moved")
    step = moved["full"] - still["full"]
    for way in ("decoded", "trained"):
        missed = ((moved[way] - still[way]) - step).norm() / step.norm()
        if not missed <= _SHARE:
            raise UserError(
                f"this backend ignores the adapter ({way}: {100 * missed:.0f} % of its effect is missing): "
                "take backend transformers"
            )


def decode_difference(model: nn.Module) -> float:
    """Largest relative difference of last hidden states, cached decoding against a full forward pass."""
    states = _states(model)
    return _relative(states["decoded"], states["full"])


def _refuse_if_apart(states: dict[str, Tensor], when: str) -> None:
    most = _TOLERANCE[states["full"].dtype]
    for way in ("decoded", "trained"):
        apart = _relative(states[way], states["full"])
        if not apart <= most:
            raise UserError(
                f"on this backend hidden states {way} differ from a full forward pass by {apart:.2g} {when}: "
                "take backend transformers"
            )


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@torch.no_grad()
def _states(model: nn.Module) -> dict[str, Tensor]:
    """Last hidden states ``[N, H]`` of the tokens after the prefix: in one pass, from the cache, in training mode."""
    head = output_head(model)
    backbone, weight = head.backbone, head.weight
    mask = torch.tensor(_MASK, device=weight.device)
    ids = (torch.arange(mask.numel(), device=weight.device).view_as(mask) + 3) % weight.shape[0]
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    with eval_mode(model):
        full = feed(backbone, ids, mask, position)
        cache = {"past_key_values": DynamicCache(config=backbone.config), "use_cache": True}
        first = feed(backbone, ids[:, :_PREFIX], mask[:, :_PREFIX], position[:, :_PREFIX], **cache)
        decoded = [first[:, -1:]]
        for at in range(_PREFIX, ids.shape[1]):
            one = slice(at, at + 1)
            decoded.append(feed(backbone, ids[:, one], mask[:, : at + 1], position[:, one], **cache))
    with _train_mode(model):
        trained = feed(backbone, ids, mask, position)
    rows = slice(_PREFIX - 1, None)
    return {"full": full[:, rows], "decoded": torch.cat(decoded, 1), "trained": trained[:, rows]}


@contextmanager
def _train_mode(model: nn.Module) -> Iterator[None]:
    resting = [module for module in model.modules() if not module.training]
    model.train()
    try:
        yield
    finally:
        for module in resting:
            module.training = False


@contextmanager
def _shaken(model: nn.Module, noise: float) -> Iterator[None]:
    """Trained tensors moved by normal noise of this size, and put back to the bit."""
    kept: list[tuple[nn.Parameter, Tensor]] = []
    numbers = 0
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        try:
            for parameter in model.parameters():
                if parameter.requires_grad and numbers < _MOST_NUMBERS:
                    kept.append((parameter, parameter.detach().clone()))
                    numbers += parameter.numel()
                    parameter.add_(noise * torch.randn(parameter.shape, generator=source).to(parameter))
            yield
        finally:
            for parameter, value in kept:
                parameter.copy_(value)

"""What a policy loss is, every loss by its name, and the ways in which rows are added up."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Level",
    "Loss",
    "Tokens",
    "Weights",
    "get",
    "mean_of_local_tokens",
    "mean_of_rows",
    "mean_of_tokens",
    "names",
    "register",
    "sum_over_longest",
    "sum_per_row",
]

#: Whether a ratio of probabilities is a token's, or the geometric mean over its row.
Level = Literal["token", "sequence"]
#: ``f(lengths [n], max_length, local [n]) -> [n]``: what every token of a row weighs in its optimizer step; ``local``
#: numbers the local batch of each row.
Weights = Callable[[Tensor, int, Tensor], Tensor]
_LOSSES: dict[str, Loss] = {}


@dataclass(frozen=True)
class Tokens:
    """What the formula of a loss sees.

    Attributes:
        logprobs: ``[B, C]`` of the policy, with gradient; 0 where nothing is scored.
        log_ratio: ``[B, C]``, log of a token's probability over the one it was sampled with; 0 where nothing is scored.
            At the level of sequences ``[B, 1]``, the mean over the row.
        advantages: ``[B, 1]`` or ``[B, C]``.
        mask: ``[B, C]``, 1 at scored tokens.
        clip_low: :math:`\\epsilon_{low}`.
        clip_high: :math:`\\epsilon_{high}`.
        options: the loss's own, every default filled in.
    """

    logprobs: Tensor
    log_ratio: Tensor
    advantages: Tensor
    mask: Tensor
    clip_low: float
    clip_high: float
    options: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A policy loss of the literature.

    Attributes:
        name: by which it is asked for.
        formula: a token's loss, ``[B, C]`` or broadcastable to it.
        weights: how tokens and rows are added up.
        source: where it was defined.
        options: its own options, positive numbers, with their defaults.
        clips: the sides on which it stops pushing a ratio further.
        levels: of the ratio, at which it is defined; the first is its own.
        trl: the field of TRL's ``GRPOConfig`` that holds each option.
        trl_bound: where TRL counts ``epsilon_high`` from. A bound is 1 + ``clip_high`` here for every loss; TRL writes
            CISPO's as the bound itself, which is 1 more.
        factor: without gradient, by which a row counts: ``[B, 1]``, 1 where it is as likely as when it was sampled.
        trl_factor: the name of its mean in TRL's log.
    """

    name: str
    formula: Callable[[Tokens], Tensor]
    weights: Weights
    source: str
    options: Mapping[str, float] = field(default_factory=dict)
    clips: tuple[str, ...] = ("low", "high")
    levels: tuple[Level, ...] = ("token", "sequence")
    trl: Mapping[str, str] = field(default_factory=dict)
    trl_bound: float = 0.0
    factor: Callable[[Tokens], Tensor] | None = None
    trl_factor: str = ""

    def with_defaults(self, given: Mapping[str, float]) -> dict[str, float]:
        """``given`` over the defaults of its options.

        Raises:
            ValueError: one it does not have, or one that is not a positive number.
        """
        for option, value in given.items():
            if option not in self.options:
                known = f"its options are {', '.join(self.options)}" if self.options else "it has no options"
                raise ValueError(f"loss {self.name} has no option {option!r}: {known}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"option {option!r} of loss {self.name} must be a positive number, got {value!r}")
        return {**self.options, **given}

    def at(self, level: str | None) -> Level:
        """The level of the ratio: ``level``, or its own if that is ``None``.

        Raises:
            ValueError: it is not defined there.
        """
        if level not in (None, *self.levels):
            raise ValueError(
                f"loss {self.name} is not defined with ratios of a {level}: use {' or '.join(self.levels)}"
            )
        return level or self.levels[0]


def register(loss: Loss) -> Loss:
    """Make ``loss`` known under its name; a second one of the same name is a programming error."""
    if loss.name in _LOSSES:
        raise ValueError(f"loss {loss.name!r} is registered twice")
    _LOSSES[loss.name] = loss
    return loss


@cache
def _discover() -> None:
    """Import every public module of this folder, each of which registers its losses."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__package__}.{module.name}")


def names() -> list[str]:
    """Every loss, in alphabetical order."""
    _discover()
    return sorted(_LOSSES)


def get(name: str) -> Loss:
    """The loss called ``name``.

    Raises:
        ValueError: there is none.

    >>> get("gspo").levels
    ('sequence',)
    """
    _discover()
    if name not in _LOSSES:
        raise ValueError(f"unknown loss {name!r}: choose one of {', '.join(names())}")
    return _LOSSES[name]


def mean_of_rows(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    """Each row's mean over its tokens, then the mean over rows: ``1 / (n length)``."""
    return 1 / (lengths.clamp(min=1) * len(lengths))


def mean_of_tokens(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    """The mean over all tokens of the step: ``1 / sum(lengths)``."""
    return (1 / lengths.sum().clamp(min=1)).expand_as(lengths)


def mean_of_local_tokens(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    """The mean over the tokens of each local batch, then the mean over these."""
    parts = int(local[-1]) + 1
    tokens = torch.zeros(parts, dtype=lengths.dtype, device=lengths.device).index_add(0, local, lengths)
    return 1 / (tokens.clamp(min=1)[local] * parts)


def sum_over_longest(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    """Sums divided by a constant, whatever the rows' lengths: ``1 / (n max_length)``."""
    return torch.full_like(lengths, 1 / (len(lengths) * max_length))


def sum_per_row(lengths: Tensor, max_length: int, local: Tensor) -> Tensor:
    """Each row's sum over its tokens, then the mean over rows: ``1 / n``."""
    return torch.full_like(lengths, 1 / len(lengths))

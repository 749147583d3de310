"""What an adapter did to one weight, and its singular directions without ever building the dense product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr_lite.errors import UserError

__all__ = ["Directions", "Update", "directions", "effective_rank", "overlap", "stable_rank"]

Lazy = Tensor | Callable[[], Tensor]


@dataclass(frozen=True)
class Update:
    """The change dW = W' - W that training made to one parameter.

    Exactly one of ``factors`` and ``dense`` is given. What is callable is called when it is needed and dropped
    afterwards, so that a 4-bit base is dequantised one matrix at a time.

    Attributes:
        name: of the adapted module, the same for every method on one base.
        base: the frozen parameter: ``[out, in]``, or ``[n]`` for a vector such as a norm's weight.
        factors: (B ``[out, r]``, A ``[r, in]``, scale) of an exactly low-rank update dW = scale * B A.
        dense: dW itself, in the shape of ``base``.
    """

    name: str
    base: Lazy
    factors: tuple[Tensor, Tensor, float] | None = None
    dense: Lazy | None = None

    def __post_init__(self) -> None:
        if (self.factors is None) == (self.dense is None):
            raise UserError(f"{self.name}: give either the factors (B, A, scale) of its update or the dense update")

    def weight(self) -> Tensor:
        """The base parameter, checked to be finite."""
        return _finite(_value(self.base), self.name, "base weight")

    def delta(self) -> Tensor:
        """The dense update in float64, checked to be finite; multiplies the factors if there are any."""
        if self.dense is not None:
            return _finite(_value(self.dense), self.name, "update").to(torch.float64)
        b, a, scale = self.checked_factors()
        return scale * (b @ a)

    def checked_factors(self) -> tuple[Tensor, Tensor, float]:
        """(B, A, scale) in float64; a ``UserError`` if they are not finite or do not fit together."""
        assert self.factors is not None
        b, a, scale = self.factors
        if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
            shapes = f"{tuple(b.shape)} and {tuple(a.shape)}"
            raise UserError(f"{self.name}: factors of shapes {shapes} do not multiply: give B [out, r] and A [r, in]")
        if not math.isfinite(scale):
            raise UserError(f"{self.name}: the adapter's scale is {scale}: choose an earlier checkpoint")
        return (
            _finite(b.detach(), self.name, "adapter's B").to(torch.float64),
            _finite(a.detach(), self.name, "adapter's A").to(torch.float64),
            float(scale),
        )


def _value(lazy: Lazy) -> Tensor:
    return (lazy() if callable(lazy) else lazy).detach()


def _finite(tensor: Tensor, name: str, what: str) -> Tensor:
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor  # mps has no float64
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(f"{name}: the {what} holds NaN or infinity: choose a checkpoint from before it diverged")
    return tensor


@dataclass(frozen=True)
class Directions:
    """A thin singular value decomposition dW = P diag(s) Q'.

    Attributes:
        left: P ``[out, r]``, orthonormal columns, float64.
        values: s ``[r]``, descending and above rounding; r is the numerical rank of dW.
        right: Q ``[in, r]``.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """Numerical rank of dW."""
        return len(self.values)

    @property
    def norm(self) -> float:
        """Frobenius norm of dW."""
        return float(self.values.norm().item())


def directions(update: Update) -> Directions:
    """The singular value decomposition of an update, in float64.

    For factors: B = Q_B R_B and A' = Q_A R_A by QR, then an SVD of the r x r matrix R_B R_A', so that the cost is
    O((out + in) r^2) and dW is never built. Otherwise a dense SVD.

    Raises:
        UserError: a tensor is not finite (named), or shapes do not fit.
    """
    if update.factors is not None:
        b, a, scale = update.checked_factors()
        b_q, b_r = torch.linalg.qr(b)
        a_q, a_r = torch.linalg.qr(a.T)
        u, values, vh = torch.linalg.svd(scale * (b_r @ a_r.T), full_matrices=False)
        left, right = b_q @ u, a_q @ vh.T
    else:
        left, values, vh = torch.linalg.svd(update.delta(), full_matrices=False)
        right = vh.T
    floor = values[0] * max(left.shape[0], right.shape[0]) * torch.finfo(torch.float64).eps
    keep = int(((values > floor) & (values > 0)).sum().item())
    return Directions(left[:, :keep], values[:keep], right[:, :keep])


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli, EUSIPCO 2007).

    >>> round(effective_rank(torch.ones(4)), 6)
    4.0
    """
    share = values[values > 0] / values.sum()
    return math.exp(float(-(share * share.log()).sum().item())) if len(share) else 0.0


def stable_rank(values: Tensor) -> float:
    """Squared Frobenius norm over squared spectral norm (Rudelson & Vershynin, J. ACM 2007).

    >>> stable_rank(torch.tensor([2.0, 1.0]))
    1.25
    """
    largest = float(values.max().item()) if len(values) else 0.0
    return float(((values / largest) ** 2).sum().item()) if largest > 0 else 0.0


def overlap(first: Directions, second: Directions, top: int = 32) -> dict[str, float]:
    """How alike two updates of one weight are.

    Returns:
        ``cosine``: <dW1, dW2> / (|dW1| |dW2|), 0 expected by chance. ``right`` and ``left``: |X1' X2|_F^2 / k for the
        leading k singular vectors of both, k = min(top, both ranks) (arXiv 2106.09685, eq. 4); 1 for equal subspaces.
        ``right_by_chance`` and ``left_by_chance``: k / n, what two random subspaces have.
    """
    k = min(top, first.rank, second.rank)
    if k == 0:
        return {}
    left, right = first.left.T @ second.left, first.right.T @ second.right
    inner = (first.values[:, None] * left * second.values * right).sum().item()
    return {
        "cosine": inner / (first.norm * second.norm),
        "right": float((right[:k, :k] ** 2).sum().item()) / k,
        "left": float((left[:k, :k] ** 2).sum().item()) / k,
        "right_by_chance": k / first.right.shape[0],
        "left_by_chance": k / first.left.shape[0],
    }

"""What an update did to the leading singular subspace of its weight: rotation, drift and intruder dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr_lite.analysis._spectrum_base import BaseSpectrum
from rlvr_lite.analysis._spectrum_update import Directions

__all__ = ["PRINCIPAL", "PrincipalChange", "principal_change"]

#: Leading directions whose rotation and drift are measured; at most a quarter of all and half of those computed.
PRINCIPAL = 32
INTRUDER_TOP = 10
#: A leading vector of W' is an intruder if no singular vector of W has this cosine with it (arXiv 2410.21228).
INTRUDER_COSINE = 0.5
_DENSE_BELOW = 512
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class PrincipalChange:
    """W against W' = W + dW in their k leading singular triplets.

    Attributes:
        k: number of leading directions: 32, or a quarter of all, or half of those computed, whichever is least.
        rotation_right: largest principal angle between the leading right subspaces, in degrees (arXiv 2511.08567).
        rotation_left: the same for the left subspaces.
        turned_right: mean squared sine of the k principal angles, in [0, 1]: steadier than the largest angle, which
            two close singular values at the cut can make large by themselves.
        turned_left: the same for the left subspaces.
        drift: |sigma'_{1..k} - sigma_{1..k}| / |sigma_{1..k}| (there, with all singular values).
        intruders: how many of the 10 leading left singular vectors of W' have no cosine of 0.5 or more with
            any singular vector of W (arXiv 2410.21228, algorithm 1).
    """

    k: int
    rotation_right: float
    rotation_left: float
    turned_right: float
    turned_left: float
    drift: float
    intruders: int


def principal_change(
    base: BaseSpectrum, update: Directions, left: Tensor, right: Tensor, weight: Tensor
) -> PrincipalChange:
    """Compare the leading subspaces before and after an update, in the coordinates of the base's singular vectors.

    With W = U S V', dW = P diag(s) Q', X = U'P and Y = V'Q on the shorter side V,

        V' W'^T W' V = S^2 + S X s Y' + Y s X' S + Y s^2 Y',

    a diagonal plus a matrix of rank 2r: its leading eigenvectors cost O(p r k) a sweep, and neither W' nor dW is
    built. On a randomised base V is completed by the part of Q outside it (Rayleigh-Ritz: sigma' is then a lower
    bound).

    Args:
        base: decomposition of W.
        update: decomposition of dW.
        left: ``[k, r]`` coefficients of P in the base's left singular vectors.
        right: ``[k, r]`` coefficients of Q in its right ones.
        weight: W ``[out, in]``, float64; used for a randomised base only.
    """
    k = min(PRINCIPAL, max(1, base.size // 4), max(1, base.kept // 2))
    s = update.values
    x, y = (left, right) if base.short == "right" else (right, left)  # y on the shorter side, where V is complete
    sigma = base.values.to(s.device)
    outside = s[:, None] * (torch.eye(len(s), dtype=s.dtype, device=s.device) - x.T @ x) * s  # of s P', beyond U
    core = None
    if not base.exact:
        core, x, y, outside = _completed(base, update, x, y, outside, weight)
    scaled = x * s

    def moved(z: Tensor) -> Tensor:  # W' V z in the coordinates of U
        return (sigma[:, None] * z if core is None else core @ z) + scaled @ (y.T @ z)

    def gram(z: Tensor) -> Tensor:  # V' W'^T W' V z
        image = moved(z)
        back = sigma[:, None] * image if core is None else core.T @ image
        return back + y @ (scaled.T @ image + outside @ (y.T @ z))

    size = len(y)
    found = None if size <= _DENSE_BELOW or len(s) > size // 8 else _leading(gram, size, k, y)
    if found is None:
        values, vectors = torch.linalg.eigh(gram(torch.eye(size, dtype=s.dtype, device=s.device)))
        found = values.flip(0)[:k], vectors.flip(1)[:, :k]
    values, vectors = found
    after = values.clamp(min=0).sqrt()
    defined = after > after[0] * size * _EPS
    across = moved(vectors) / torch.where(defined, after, torch.inf)
    beyond = _square_root(outside) @ (y.T @ vectors) / torch.where(defined, after, torch.inf)
    angles = {"short": _angles(vectors[k:]), "long": _angles(torch.cat([across[k:], beyond]))}
    leading = (across if base.short == "right" else vectors)[: base.kept, : min(INTRUDER_TOP, k)]
    on_right, on_left = ("short", "long") if base.short == "right" else ("long", "short")
    return PrincipalChange(
        k=k,
        rotation_right=angles[on_right][0],
        rotation_left=angles[on_left][0],
        turned_right=angles[on_right][1],
        turned_left=angles[on_left][1],
        drift=float(((after - sigma[:k]).norm() / sigma[:k].norm()).item()),
        intruders=int((leading.abs().max(0).values < INTRUDER_COSINE).sum().item()),
    )


def _completed(
    base: BaseSpectrum, update: Directions, x: Tensor, y: Tensor, outside: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Extend the coordinates of a randomised base by the update's part outside it.

    Returns:
        W in the extended orthonormal coordinates, and X, Y and the energy of P outside in them.
    """
    basis, values = base.basis.to(y.device), base.values.to(y.device)
    short, long = (update.right, update.left) if base.short == "right" else (update.left, update.right)
    tall = weight if base.short == "right" else weight.T
    rest = torch.linalg.qr(short - basis @ y).Q
    rest = torch.linalg.qr(rest - basis @ (basis.T @ rest)).Q  # twice is enough for orthogonality to rounding
    image = tall @ rest
    u = (tall @ basis) / torch.where(base.usable().to(y.device), values, torch.inf)
    across = u.T @ image
    beyond, triangle = torch.linalg.qr(image - u @ across)
    core = torch.cat(
        [
            torch.cat([torch.diag(values), across], 1),
            torch.cat([values.new_zeros(rest.shape[1], len(values)), triangle], 1),
        ]
    )
    extra = beyond.T @ long
    outside = outside - (extra * update.values).T @ (extra * update.values)
    return core, torch.cat([x, extra]), torch.cat([y, rest.T @ short]), outside


def _square_root(matrix: Tensor) -> Tensor:
    """R with R'R equal to a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


def _angles(complement: Tensor) -> tuple[float, float]:
    """Largest principal angle in degrees and the mean squared sine, from the components ``[*, k]`` outside a subspace.

    Sines, not cosines: small angles keep their digits.
    """
    if not complement.numel():
        return 0.0, 0.0
    sine = float(torch.linalg.matrix_norm(complement, 2).item())
    mean = float((complement**2).sum().item()) / complement.shape[1]
    return math.degrees(math.asin(min(1.0, sine))), min(1.0, mean)


def _leading(
    gram: Callable[[Tensor], Tensor], size: int, k: int, update: Tensor, degree: int = 12, sweeps: int = 12
) -> tuple[Tensor, Tensor] | None:
    """Leading k eigenpairs of a Gram matrix near a descending diagonal, by Chebyshev-filtered subspace iteration.

    The filter damps everything below the smallest Ritz value of the block (Zhou & Saad, 2007). The block starts as
    the first 2 k coordinates and the update's leading directions.

    Returns:
        Values ``[k]`` and vectors ``[size, k]`` to rounding, or ``None`` if ``sweeps`` do not suffice.
    """
    unit = torch.eye(size, 2 * k, dtype=update.dtype, device=update.device)
    vectors = torch.linalg.qr(torch.cat([unit, update[:, :k]], 1)).Q
    for _ in range(sweeps):
        image = gram(vectors)
        values, turn = torch.linalg.eigh(vectors.T @ image)
        values, turn = values.flip(0), turn.flip(1)
        vectors, image = vectors @ turn, image @ turn
        error = float((image[:, :k] - vectors[:, :k] * values[:k]).norm(dim=0).max().item())
        if error <= 1e-13 * float(values[0].item()):
            return values[:k], vectors[:, :k]
        half = float(values[-1].item()) / 2
        if half <= 0:
            return None
        top = float(values[0].item()) / half - 1  # the filter is scaled to 1 at the largest eigenvalue
        scale = 1 / top
        before, now = vectors, (image / half - vectors) * scale
        for _ in range(degree - 1):
            following = 1 / (2 * top - scale)
            before, now = now, 2 * following * (gram(now) / half - now) - scale * following * before
            scale = following
        vectors = torch.linalg.qr(now).Q
    return None

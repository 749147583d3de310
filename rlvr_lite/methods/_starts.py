"""Starting matrices ``(A0 [r, in], B0 [out, r])`` from a weight ``W [out, in]``, in fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Start",
    "block_identity",
    "geometry_aware",
    "left_singular_factors",
    "minor",
    "minor_left",
    "orthonormal_minor",
    "orthonormal_principal",
    "orthonormal_random",
    "principal",
    "qr",
    "singular_factors",
    "weight_of",
]

Start = tuple[Tensor, Tensor]


@torch.no_grad()
def weight_of(layer: Any) -> Tensor:
    """The weight ``[out, in]`` of a linear layer in fp32, dequantised if it is held in 4 bits."""
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer).detach().float()
    return weight.T if type(layer).__name__ == "Conv1D" else weight  # GPT-2's layers hold it transposed


def _svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``U [out, k], S [k], V^T [k, in]``; a wide matrix goes in transposed, which is six times as fast on a CPU."""
    if weight.shape[0] >= weight.shape[1]:
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        return u, s, vh
    v, s, uh = torch.linalg.svd(weight.T, full_matrices=False)
    return uh.T, s, v.T


def _balanced(weight: Tensor, r: int, scale: float, part: slice) -> Start:
    """``B0 A0 = (1/scale) U S V^T`` of some singular triplets, with ``sqrt(S)`` on either side."""
    u, s, vh = _svd(weight)
    root = (s[part] / scale).sqrt()
    return (root[:, None] * vh[part]).contiguous(), (u[:, part] * root).contiguous()


def principal(weight: Tensor, r: int, scale: float) -> Start:
    """PiSSA (arXiv 2404.02948, eq. 2-3): the r largest singular triplets, so that ``scale B0 A0`` is their part of W."""
    return _balanced(weight, r, scale, slice(r))


def minor(weight: Tensor, r: int, scale: float) -> Start:
    """MiLoRA (arXiv 2406.09044, §3.2): the r smallest singular triplets."""
    return _balanced(weight, r, scale, slice(-r, None))


def qr(weight: Tensor, r: int, scale: float) -> Start:
    """OLoRA (arXiv 2406.01775, algorithm 1): the first r columns of Q and rows of R of ``W = Q R``."""
    q, upper = torch.linalg.qr(weight)
    return upper[:r].contiguous(), q[:, :r].contiguous()


def orthonormal_principal(weight: Tensor, r: int, scale: float) -> Start:
    """RLPO (arXiv 2606.31813, §5.2): A is the r leading right singular vectors, without their values; B is zero."""
    _, _, vh = _svd(weight)
    return vh[:r].contiguous(), weight.new_zeros(weight.shape[0], r)


def orthonormal_minor(weight: Tensor, r: int, scale: float) -> Start:
    """RLMO (arXiv 2606.31813, §5.2): A is the r last right singular vectors, without their values; B is zero."""
    _, _, vh = _svd(weight)
    return vh[-r:].contiguous(), weight.new_zeros(weight.shape[0], r)


def orthonormal_random(weight: Tensor, r: int, scale: float) -> Start:
    """The control of RLPO and RLMO: A is r orthonormal directions drawn uniformly, whatever W is; B is zero."""
    out, inp = weight.shape
    drawn, triangle = torch.linalg.qr(torch.randn(inp, r, device=weight.device))
    signs = triangle.diagonal().sign()  # makes the draw uniform (Mezzadri 2007)
    return (drawn * signs).T.contiguous(), weight.new_zeros(out, r)


def minor_left(weight: Tensor, r: int, scale: float) -> Start:
    """MiCA (arXiv 2604.01694, figure 1b): B is the r last left singular vectors; A is zero."""
    u, _, _ = _svd(weight)
    return weight.new_zeros(r, weight.shape[1]), u[:, -r:].contiguous()


def left_singular_factors(weight: Tensor, r: int, scale: float) -> Start:
    """TinyLoRA (arXiv 2602.04118, ``W + U S R V^T``): ``A = V^T`` and ``B = U S`` of the r leading triplets."""
    u, s, vh = _svd(weight)
    return vh[:r].contiguous(), (u[:, :r] * s[:r]).contiguous()


def singular_factors(weight: Tensor, r: int, scale: float) -> Start:
    """LoRA-XS (arXiv 2405.17604, eq. 2): ``A = S V^T`` and ``B = U`` of the r leading triplets.

    The paper writes its layers as ``x W``, where the singular values sit in the factor next to the input too.
    """
    u, s, vh = _svd(weight)
    return (s[:r, None] * vh[:r]).contiguous(), u[:, :r].contiguous()


def geometry_aware(weight: Tensor, r: int, scale: float, rho: float) -> Start:
    """GeoRA (arXiv 2601.09361, eq. 1-3 and 6-8): the principal triplets of W where it is small.

    An entry stays if it is among the share ``rho`` of smallest magnitude in W, or in W's rank-r approximation;
    the others are set to zero before the decomposition, and the singular values are split evenly.
    """
    u, s, vh = _svd(weight)
    leading = (u[:, :r] * s[:r]) @ vh[:r]
    kept = _smallest(leading, rho) | _smallest(weight, rho)
    return _balanced(weight * kept, r, 1.0, slice(r))


def _smallest(matrix: Tensor, share: float) -> Tensor:
    """Mask of the entries whose magnitude is at most the ``share`` quantile (linear between order statistics)."""
    magnitude = matrix.abs()
    rank = int(share * (magnitude.numel() - 1)) + 1
    return magnitude <= magnitude.flatten().kthvalue(rank).values


def block_identity(r: int, inp: int) -> Tensor:
    """BIMI (arXiv 2608.31036): identity blocks ``r x r`` side by side, the last one cut, ``[r, in]``.

    >>> block_identity(2, 5).tolist()
    [[1.0, 0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0, 0.0]]
    """
    return torch.eye(r).repeat(1, -(-inp // r))[:, :inp].contiguous()

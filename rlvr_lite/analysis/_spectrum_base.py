"""The singular value decomposition of a frozen base weight: exact where small, randomised with a bound where large."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlvr_lite.errors import UserError

__all__ = ["EXACT_LIMIT", "BaseSpectrum", "Side", "cached_decompose", "decompose", "weight_digest"]

Side = Literal["left", "right"]

#: Weights whose shorter side is at most this long are decomposed exactly.
EXACT_LIMIT = 2048
#: Of a larger weight this share of the singular vectors is computed.
RANDOMISED_SHARE = 0.2
POWER_ITERATIONS = 6
#: Probability that a randomised error bound does not hold: 10 probes, each off by 10 with probability 1/10.
FAILURE_PROBABILITY = 1e-10
_EPS = torch.finfo(torch.float64).eps


def weight_digest(weight: Tensor) -> str:
    """SHA-256 over the shape and values of a weight.

    16-bit weights are hashed as the fp32 numbers they stand for, so one base loaded in either precision has one digest.
    """
    exact = weight.detach().to("cpu", torch.float64 if weight.dtype == torch.float64 else torch.float32).contiguous()
    state = hashlib.sha256(f"{tuple(exact.shape)}".encode())
    state.update(exact.numpy())  # type: ignore[arg-type]
    return state.hexdigest()


@dataclass(frozen=True)
class BaseSpectrum:
    """Leading singular values of a weight W ``[out, in]`` and its singular vectors on the shorter side.

    The vectors of the longer side follow from W itself (u_j = W v_j / sigma_j), which spares most of the memory.

    Attributes:
        shape: (out, in).
        digest: :func:`weight_digest` of W.
        values: singular values ``[k]``, descending, float64.
        basis: orthonormal singular vectors ``[p, k]`` of the shorter side, p = min(out, in), float64.
        norm: Frobenius norm of W.
        tail: upper bound of the largest singular value left out, 0 where all p are there.
        residual: spectral norm of the Gram matrix's coupling between the kept and the left out directions, 0 if exact.
    """

    shape: tuple[int, int]
    digest: str
    values: Tensor
    basis: Tensor
    norm: float
    tail: float = 0.0
    residual: float = 0.0

    @property
    def size(self) -> int:
        """Number p of singular values of W, kept or not."""
        return min(self.shape)

    @property
    def kept(self) -> int:
        """Number k of singular values computed."""
        return len(self.values)

    @property
    def exact(self) -> bool:
        """Whether all singular values are there."""
        return self.kept == self.size

    @property
    def short(self) -> Side:
        """The side whose vectors are stored: ``right`` ([in] vectors) unless in > out."""
        return "right" if self.shape[1] <= self.shape[0] else "left"

    @property
    def upper(self) -> Tensor:
        """Upper bounds ``[k]`` of the true singular values; :attr:`values` are lower bounds.

        For a Gram matrix [[D, R'], [R, C]] in the kept and left out directions, D = diag(mu), |C| <= c, |R| <= rho,
        counting the eigenvalues of the Schur complement gives
        lambda_j <= (mu_j + c + sqrt((mu_j - c)^2 + 4 rho^2)) / 2, and always lambda_j <= mu_j + c.
        """
        if self.exact:
            return self.values
        mu, c = self.values**2, self.tail**2
        coupled = (mu + c + torch.sqrt((mu - c) ** 2 + 4 * self.residual**2)) / 2
        return torch.minimum(coupled, mu + c).sqrt()

    @property
    def error(self) -> float:
        """Largest possible error of a kept singular value, relative to the largest one."""
        return float(((self.upper - self.values).max() / self.values[0]).item()) if self.values[0] > 0 else 0.0

    def subspace_energy(self, k: int) -> float:
        """Lower bound of (energy of W in the computed top k) / (energy of W in its true top k); 1 means the true one."""
        ours, best = (self.values[:k] ** 2).sum().item(), (self.upper[:k] ** 2).sum().item()
        return ours / best if best > 0 else 1.0

    def describe(self) -> str:
        """The bound in words."""
        if self.exact:
            return "exact (float64)"
        return (
            f"randomised, {self.kept} of {self.size} directions: singular values within {self.error:.1e} of the largest, "
            f"top 10 % holds at least {self.subspace_energy(math.ceil(self.size / 10)):.4f} of the energy it could"
        )

    def rank_holding(self, share: float) -> int | None:
        """Smallest k whose top-k directions hold this share of W's energy; ``None`` if it lies beyond those kept."""
        total = torch.cumsum(self.values**2, 0)
        enough = (total >= share * self.norm**2 * (1 - 1e-12)).nonzero()
        return int(enough[0].item()) + 1 if len(enough) else None

    def usable(self) -> Tensor:
        """Which directions ``[k]`` have a singular value above rounding, so that their longer side is defined."""
        return self.values > self.values[0] * max(self.shape) * _EPS

    def coefficients(self, side: Side, directions: Tensor, weight: Tensor) -> Tensor:
        """Inner products ``[k, r]`` of W's singular vectors of one side with the columns of ``directions``.

        Args:
            side: ``left`` (vectors of length out) or ``right`` (length in).
            directions: ``[out, r]`` or ``[in, r]``, float64.
            weight: W ``[out, in]``, float64; used on the longer side only.
        """
        basis = self.basis.to(directions.device)
        if side == self.short:
            return basis.T @ directions
        through = weight.T @ directions if side == "left" else weight @ directions
        usable = self.usable().to(directions.device)
        scale = torch.where(usable, self.values.to(directions.device), torch.inf)
        return (basis.T @ through) / scale[:, None]


def _as_float64(weight: Tensor) -> Tensor:
    weight = weight.detach()
    return (weight.cpu() if weight.device.type == "mps" else weight).to(torch.float64)  # mps has no float64


def decompose(weight: Tensor, *, rank: int | None = None, seed: int = 0) -> BaseSpectrum:
    """Singular values and vectors of a base weight.

    Exact (QR, then an SVD of the p x p triangle, float64) where the shorter side p is at most :data:`EXACT_LIMIT`, else
    randomised subspace iteration on the Gram matrix (Halko, Martinsson & Tropp, arXiv 0909.4061, algorithm 4.4) with
    Rayleigh-Ritz. Its singular values are lower bounds; :attr:`BaseSpectrum.upper` bounds them from above, using
    a bound of the left out spectrum from ten random probes (there, lemma 4.1, applied to a power of the remainder),
    which fails with probability 1e-10.

    Args:
        weight: ``[out, in]``.
        rank: how many directions; ``None`` takes all of a small weight and a fifth of a large one.
        seed: of the random start.

    Raises:
        UserError: the weight is not a finite matrix, or is zero.
    """
    if weight.ndim != 2:
        raise UserError(f"a spectrum needs a matrix, got a tensor of shape {tuple(weight.shape)}")
    matrix = _as_float64(weight)
    norm = float(torch.linalg.matrix_norm(matrix).item())
    if not math.isfinite(norm):
        raise UserError("the base weight holds NaN or infinity: reload the base")
    if norm == 0:
        raise UserError("the base weight is all zero: a spectrum is not defined")
    shape = (matrix.shape[0], matrix.shape[1])
    size = min(shape)
    if rank is None:
        rank = size if size <= EXACT_LIMIT else math.ceil(size * RANDOMISED_SHARE)
    tall = matrix if shape[0] >= shape[1] else matrix.T
    digest = weight_digest(weight)
    if rank >= size:
        triangle = torch.linalg.qr(tall, mode="r").R
        _, values, rows = torch.linalg.svd(triangle, full_matrices=False)
        return BaseSpectrum(shape, digest, values, rows.T.contiguous(), norm)
    gram = tall.T @ tall
    generator = torch.Generator().manual_seed(seed)

    def normal(columns: int) -> Tensor:
        return torch.randn(size, columns, generator=generator, dtype=torch.float64).to(gram.device)

    basis = torch.linalg.qr(normal(rank)).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(gram @ basis).Q
    ritz, rotation = torch.linalg.eigh(basis.T @ (gram @ basis))
    basis, ritz = basis @ rotation.flip(1), ritz.flip(0).clamp(min=0)
    coupling = gram @ basis - basis * ritz
    residual = math.sqrt(max(float(torch.linalg.eigvalsh(coupling.T @ coupling)[-1].item()), 0.0))
    tail = _remainder_norm(gram, basis, normal(10), float(ritz[0].item()))
    return BaseSpectrum(shape, digest, ritz.sqrt(), basis, norm, tail, residual)


def _remainder_norm(gram: Tensor, basis: Tensor, probes: Tensor, largest: float, powers: int = 32) -> float:
    """Upper bound of the largest singular value outside ``basis``: |E| <= (10 sqrt(2/pi) max |(E'E)^t x|)^(1/2t)."""
    logarithm = 0.0
    for _ in range(powers):
        probes = probes - basis @ (basis.T @ probes)
        probes = gram @ probes
        probes = probes - basis @ (basis.T @ probes)
        size = float(probes.norm(dim=0).max().item())
        if size == 0:
            break
        logarithm += math.log(size)
        probes = probes / size
    else:
        bound = math.exp((logarithm + math.log(10 * math.sqrt(2 / math.pi))) / powers)
        return math.sqrt(bound + gram.shape[0] * _EPS * largest)
    return math.sqrt(gram.shape[0] * _EPS * largest)


def cached_decompose(weight: Tensor, directory: Path | None, *, rank: int | None = None) -> BaseSpectrum:
    """:func:`decompose`, read from ``directory`` if this weight was decomposed before, and written there if not.

    A file is named by the digest of the weight and the number of directions; one that cannot be read is made anew.
    """
    if directory is None:
        return decompose(weight, rank=rank)
    size = min(weight.shape)
    wanted = rank if rank is not None else (size if size <= EXACT_LIMIT else math.ceil(size * RANDOMISED_SHARE))
    digest = weight_digest(weight)
    path = directory / f"{digest}-{min(wanted, size)}.safetensors"
    found = _read(path, digest, (weight.shape[0], weight.shape[1]), min(wanted, size))
    if found is not None:
        return found
    base = decompose(weight, rank=rank)
    _write(path, base)
    return base


def _read(path: Path, digest: str, shape: tuple[int, int], kept: int) -> BaseSpectrum | None:
    try:
        with safe_open(path, "pt") as file:
            values, basis, facts = (file.get_tensor(name) for name in ("values", "basis", "facts"))
    except (OSError, SafetensorError):
        return None
    if values.shape != (kept,) or basis.shape != (min(shape), kept) or facts.shape != (3,):
        return None
    norm, tail, residual = facts.tolist()
    return BaseSpectrum(shape, digest, values, basis, norm, tail, residual)


def _write(path: Path, base: BaseSpectrum) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    facts = torch.tensor([base.norm, base.tail, base.residual], dtype=torch.float64)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"values": base.values.cpu(), "basis": base.basis.cpu().contiguous(), "facts": facts}, temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {error}; free some space or choose another cache directory") from error
    finally:
        temporary.unlink(missing_ok=True)

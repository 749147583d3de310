"""The base's decomposition: exact against torch's, randomised within its printed bounds, cached by content."""

import hashlib
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlvr_lite.analysis import _spectrum_base
from rlvr_lite.analysis.spectrum import cached_decompose, decompose, weight_digest
from rlvr_lite.errors import UserError


def random_orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def random_spectrum(index: int) -> torch.Tensor:
    """Singular values of many kinds: flat, power laws, steps, exponential, Gaussian noise, rank deficient."""
    generator = torch.Generator().manual_seed(index)
    size = int(torch.randint(40, 160, (1,), generator=generator).item())
    place = torch.arange(1, size + 1, dtype=torch.float64)
    kind = index % 6
    if kind == 0:
        values = place ** -float(torch.rand(1, generator=generator) * 2)
    elif kind == 1:
        values = torch.exp(-place / size * float(torch.rand(1, generator=generator) * 20))
    elif kind == 2:
        values = torch.where(place <= size // 8, 1.0, 0.05)
    elif kind == 3:
        values = torch.randn(size, generator=generator, dtype=torch.float64).abs()
    elif kind == 4:
        values = torch.where(place <= size // 2, 1 / place, 0.0)
    else:
        values = 1 - 0.5 * place / size
    return values.double().sort(descending=True).values * 10 ** float(torch.randn(1, generator=generator))


def weight_of(values: torch.Tensor, longer: int, index: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 + index)
    size = len(values)
    weight = random_orthonormal(longer, size, generator) * values @ random_orthonormal(size, size, generator).T
    return weight if index % 2 else weight.T.contiguous()


@pytest.mark.parametrize("shape", [(7, 7), (40, 25), (25, 40), (1, 9)])
def test_exact_decomposition_is_that_of_a_dense_svd(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base = decompose(weight)
    u, values, vh = torch.linalg.svd(weight, full_matrices=False)
    assert base.exact
    assert base.error == 0
    torch.testing.assert_close(base.values, values, rtol=1e-12, atol=0)
    for side, vectors in (("left", u), ("right", vh.T)):
        inner = base.coefficients(side, vectors, weight)  # the same vectors up to their sign
        torch.testing.assert_close(inner.abs(), torch.eye(min(shape), dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_longer_side_of_a_zero_singular_value_is_left_out_instead_of_blown_up():
    weight = torch.zeros(6, 4, dtype=torch.float64)
    weight[0, 0], weight[1, 1] = 2.0, 1.0
    base = decompose(weight)
    inner = base.coefficients("left", torch.eye(6, dtype=torch.float64), weight)
    assert torch.isfinite(inner).all()
    assert inner[2:].abs().max() == 0


@pytest.mark.parametrize("index", range(50))
def test_randomised_bounds_are_honoured(index):
    values = random_spectrum(index)
    weight = weight_of(values, len(values) + 13 * (index % 3), index)
    base = decompose(weight, rank=max(2, len(values) // 5), seed=index)
    true = values[: base.kept]
    rounding = 1e-7 * float(values[0])  # of a singular value taken from a Gram matrix: sqrt of float64's
    assert (base.values <= true + rounding).all()
    assert (true <= base.upper + rounding).all()
    assert float(values[base.kept]) <= base.tail + rounding
    assert float((true - base.values).max() / base.values[0]) <= base.error + 1e-7
    for k in (1, base.kept // 2, base.kept):
        held = base.coefficients(base.short, torch.eye(base.size, dtype=torch.float64), weight)[:k].T
        tall = weight if base.short == "right" else weight.T
        ours, best = float(((tall @ held) ** 2).sum()), float((values[:k] ** 2).sum())
        assert ours / best >= base.subspace_energy(k) - 1e-7


def test_randomised_bounds_say_something():
    """Bounds that hold because they are enormous would be of no use."""
    values = torch.arange(1, 201, dtype=torch.float64) ** -0.5
    base = decompose(weight_of(values, 300, 1), rank=60)
    assert base.error < 0.03
    assert base.subspace_energy(20) > 0.99
    assert base.tail < 2 * float(values[60])
    assert "randomised" in base.describe()


def test_a_wrong_bound_would_be_noticed(monkeypatch):
    """The check above can fail: with no power iteration the values are poor, and only the bound covers that."""
    monkeypatch.setattr(_spectrum_base, "POWER_ITERATIONS", 0)
    values = torch.linspace(1, 0.5, 120, dtype=torch.float64)
    base = decompose(weight_of(values, 120, 1), rank=12)
    assert float((values[:12] - base.values).max()) > 0.1
    assert (values[:12] <= base.upper + 1e-7).all()


def test_rank_holding_counts_energy():
    base = decompose(torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0])))
    assert [base.rank_holding(share) for share in (0.5, 0.6, 0.61, 0.86, 0.87, 1.0)] == [1, 1, 2, 2, 3, 4]
    assert decompose(torch.diag(torch.ones(10)), rank=3).rank_holding(0.5) is None


def test_digest_depends_on_values_and_shape_not_on_a_wider_type():
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert weight_digest(weight) == weight_digest(weight.float())
    assert weight_digest(weight) != weight_digest(weight.reshape(4, 6))
    changed = weight.clone()
    changed[3, 2] *= 1.01
    assert weight_digest(weight) != weight_digest(changed)


def test_cache_is_used_and_mends_itself(tmp_path, monkeypatch):
    weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    made = cached_decompose(weight, tmp_path)
    (path,) = tmp_path.iterdir()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    calls = []
    true = _spectrum_base.decompose
    monkeypatch.setattr(_spectrum_base, "decompose", lambda *a, **k: calls.append(1) or true(*a, **k))
    again = cached_decompose(weight, tmp_path)
    assert not calls
    assert torch.equal(again.basis, made.basis)
    assert torch.equal(again.values, made.values)
    assert (again.norm, again.tail, again.residual, again.digest) == (made.norm, made.tail, made.residual, made.digest)
    path.write_bytes(path.read_bytes()[:100])  # torn by a full disk, say
    cached_decompose(weight, tmp_path)
    assert calls
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    tensors = load_file(path)
    save_file({**tensors, "basis": tensors["basis"][:, :3].contiguous()}, path)  # a file of another shape
    assert cached_decompose(weight, tmp_path).exact
    assert cached_decompose(weight + 1, tmp_path).digest != made.digest  # another base, another file
    assert len(list(tmp_path.iterdir())) == 2


def test_randomised_and_exact_decompositions_have_their_own_cache_files(tmp_path):
    weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    assert cached_decompose(weight, tmp_path, rank=5).kept == 5
    assert cached_decompose(weight, tmp_path).kept == 20
    assert cached_decompose(weight, tmp_path, rank=5).tail > 0


def test_large_weights_are_randomised_by_default(monkeypatch):
    monkeypatch.setattr(_spectrum_base, "EXACT_LIMIT", 16)
    base = decompose(torch.randn(30, 20, generator=torch.Generator().manual_seed(0)))
    assert base.kept == math.ceil(20 * _spectrum_base.RANDOMISED_SHARE)
    assert not base.exact


@pytest.mark.parametrize("weight", [torch.zeros(3, 3), torch.tensor([[1.0, math.nan]]), torch.ones(3)])
def test_what_has_no_spectrum_is_refused(weight):
    with pytest.raises(UserError):
        decompose(weight)

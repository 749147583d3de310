"""Factors of an update: exact where it is low-rank, and nowhere further from it than need be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.analysis.spectrum import Update
from rlvr_lite.exports import low_rank
from rlvr_lite.exports._factors import best_rank


def matrix(out, inp, seed=0, rank=None):
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(out, inp, generator=generator, dtype=torch.float64)
    return matrix(out, rank, seed) @ matrix(rank, inp, seed + 1)


def least_error(delta, rank):
    return float(torch.linalg.svdvals(delta)[rank:].square().sum().sqrt())


@settings(max_examples=40, deadline=None)
@given(out=st.integers(1, 12), inp=st.integers(1, 12), rank=st.integers(1, 14), seed=st.integers(0, 99))
def test_the_approximation_is_the_closest_of_its_rank(out, inp, rank, seed):
    delta = matrix(out, inp, seed)
    b, a = best_rank(delta, rank)
    assert b.shape[1] == a.shape[0] <= min(rank, out, inp)
    assert float((delta - b @ a).norm()) == pytest.approx(least_error(delta, rank), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(rank=st.integers(1, 6), wanted=st.one_of(st.none(), st.integers(1, 8)), scale=st.sampled_from([0.5, 1.0, 3.7]))
def test_factors_and_their_product_give_the_same(rank, wanted, scale):
    b, a = matrix(10, rank, 3), matrix(rank, 8, 4)
    weight = torch.zeros(10, 8)
    given_factors = low_rank([Update("x", weight, (b, a, scale))], wanted, 8)
    given_dense = low_rank([Update("x", weight, dense=scale * b @ a)], wanted, 8)
    for found in (given_factors, given_dense):
        held = found.factors["x"][0].double() @ found.factors["x"][1].double()
        exact = scale * b @ a
        error = float((exact - held).norm() / exact.norm())
        assert error == pytest.approx(found.error, abs=1e-6)
        assert found.exact == (wanted is None or wanted >= rank)
    assert given_factors.error == pytest.approx(given_dense.error, abs=1e-6)


def test_layers_of_different_rank_share_the_largest_and_nothing_changes():
    deltas = {"one": matrix(6, 9, 0, rank=1), "four": matrix(6, 9, 5, rank=4), "none": torch.zeros(6, 9).double()}
    found = low_rank([Update(n, torch.zeros(6, 9), dense=d) for n, d in deltas.items()], None, 5)
    assert found.rank == 4
    for name, delta in deltas.items():
        b, a = found.factors[name]
        assert (b.shape, a.shape) == ((6, 4), (4, 9))
        assert b.dtype == a.dtype == torch.float32
        torch.testing.assert_close(b.double() @ a.double(), delta, rtol=0, atol=1e-5)


def test_what_is_no_matrix_is_left_out_and_counted():
    updates = [Update("m", torch.zeros(3, 3), dense=3 * torch.eye(3)), Update("v", torch.zeros(4), dense=torch.ones(4))]
    found = low_rank(updates, None, 3)
    assert found.left_out == ("v",)
    assert not found.exact
    assert found.error == pytest.approx((4 / 31) ** 0.5)


def test_nothing_changed_is_exact():
    found = low_rank([Update("m", torch.zeros(4, 3), dense=torch.zeros(4, 3))], None, 2)
    assert (found.rank, found.error, found.exact) == (1, 0.0, True)


def test_a_wide_matrix_comes_within_a_hundredth_of_the_least_error(monkeypatch):
    monkeypatch.setattr("rlvr_lite.exports._factors._EXACT_SIDE", 64)
    left, _ = torch.linalg.qr(matrix(300, 200, 7))
    right, _ = torch.linalg.qr(matrix(250, 200, 8))
    delta = left * torch.arange(1, 201).double() ** -0.7 @ right.T  # a slow decay, the hard case
    state = torch.random.get_rng_state()
    b, a = best_rank(delta, 16)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert float((delta - b @ a).norm()) <= 1.01 * least_error(delta, 16)
    again, _ = best_rank(delta, 16)
    assert torch.equal(again, b)

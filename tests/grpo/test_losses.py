"""Every loss against its formula in loops, and the sums that splitting and dropping rely on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlvr_lite.grpo import RolloutBatch, keep_informative, losses, policy_loss, row_weights
from tests.grpo.reference import full_loss, relative, step_batch

MAX_LENGTH = 16
NAMES = losses.names()


def weighted(batch: RolloutBatch, name: str, local_rows: int | None = None) -> RolloutBatch:
    weights = row_weights(batch.mask.sum(-1), loss=name, max_length=MAX_LENGTH, local_rows=local_rows)
    return replace(batch, weights=weights)


def loss_of(name: str, logprobs: Tensor, batch: RolloutBatch, kl_coef: float = 0.0, unbiased_kl: bool = True) -> Tensor:
    return policy_loss(
        logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.mask,
        loss=name,
        clip_low=0.2,
        clip_high=0.28,
        ref_logprobs=batch.ref_logprobs,
        kl_coef=kl_coef,
        unbiased_kl=unbiased_kl,
        weights=batch.weights,
    )[0]


def some_logprobs(batch: RolloutBatch) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return (-3 + torch.randn(batch.mask.shape, generator=generator)).requires_grad_()


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize(("kl_coef", "unbiased_kl"), [(0.0, True), (0.1, True), (0.1, False)])
@pytest.mark.parametrize("name", NAMES)
def test_formula(name: str, kl_coef: float, unbiased_kl: bool, on_policy: bool) -> None:
    batch = step_batch()
    if on_policy:
        batch = replace(batch, old_logprobs=None)
    logprobs = some_logprobs(batch)
    expected = full_loss(name, logprobs, batch, max_length=MAX_LENGTH, kl_coef=kl_coef, unbiased_kl=unbiased_kl)
    (expected_gradient,) = torch.autograd.grad(expected, logprobs)
    found = loss_of(name, logprobs, weighted(batch, name), kl_coef, unbiased_kl)
    (gradient,) = torch.autograd.grad(found, logprobs)
    torch.testing.assert_close(found, expected)
    assert relative(gradient, expected_gradient) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_whole_step_needs_no_weights(name: str) -> None:
    batch = step_batch()
    logprobs = some_logprobs(batch)
    given = loss_of(name, logprobs, weighted(batch, name))
    found, _ = policy_loss(
        logprobs, batch.old_logprobs, batch.advantages, batch.mask, loss=name, clip_high=0.28, max_length=MAX_LENGTH
    )
    torch.testing.assert_close(found, given)


@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_and_dropped_rows_add_nothing(name: str) -> None:
    batch = weighted(step_batch(), name, local_rows=6)
    logprobs = some_logprobs(batch)
    whole = loss_of(name, logprobs, batch)
    (expected,) = torch.autograd.grad(whole, logprobs)
    kept = keep_informative(batch.advantages, batch.mask)
    assert len(kept) < len(batch)
    parts = [loss_of(name, logprobs[rows], batch.rows(rows)) for rows in kept.split([1, 5, len(kept) - 6])]
    (gradient,) = torch.autograd.grad(sum(parts), logprobs)
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(gradient, expected)


def test_bnpo_divides_each_local_batch_by_its_own_tokens() -> None:
    lengths = torch.tensor([2, 6, 4, 4])
    weights = row_weights(lengths, loss="bnpo", max_length=9, local_rows=2)
    torch.testing.assert_close(weights, torch.tensor([1 / 16, 1 / 16, 1 / 16, 1 / 16]))
    weights = row_weights(torch.tensor([2, 6, 1, 1, 5]), loss="bnpo", max_length=9, local_rows=2)
    torch.testing.assert_close(weights, torch.tensor([1 / 24, 1 / 24, 1 / 6, 1 / 6, 1 / 15]))


def test_reinforce_is_dr_grpo_on_fresh_samples() -> None:
    batch = replace(step_batch(), old_logprobs=None)
    logprobs = some_logprobs(batch)
    gradients = [
        torch.autograd.grad(loss_of(n, logprobs, weighted(batch, n)), logprobs)[0] for n in ("reinforce", "dr_grpo")
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_padding_may_hold_anything(name: str, poison: float) -> None:
    batch = weighted(step_batch(), name)
    logprobs = some_logprobs(batch)
    clean = torch.autograd.grad(loss_of(name, logprobs, batch, 0.1), logprobs)[0]
    outside = batch.mask == 0
    assert batch.old_logprobs is not None
    assert batch.ref_logprobs is not None
    spoiled = replace(
        batch,
        old_logprobs=batch.old_logprobs.masked_fill(outside, poison),
        ref_logprobs=batch.ref_logprobs.masked_fill(outside, poison),
    )
    loss = loss_of(name, logprobs, spoiled, 0.1)
    assert loss.isfinite()
    torch.testing.assert_close(torch.autograd.grad(loss, logprobs)[0], clean)


def test_a_row_without_tokens_is_harmless() -> None:
    batch = step_batch(dead=0)
    mask = batch.mask.clone()
    mask[3] = 0
    batch = replace(batch, mask=mask)
    for name in NAMES:
        logprobs = some_logprobs(batch)
        loss = loss_of(name, logprobs, weighted(batch, name))
        assert loss.isfinite()
        assert (torch.autograd.grad(loss, logprobs)[0][3] == 0).all()


def test_stats_count_clipped_tokens_and_add_up() -> None:
    logprobs = torch.log(torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]))
    ratios = torch.tensor([[1.5, 1.1, 0.5], [1.5, 0.5, 0.5]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    advantages = torch.tensor([1.0, -1.0])

    def stats(rows: slice, name: str) -> object:
        return policy_loss(logprobs[rows], (logprobs - ratios.log())[rows], advantages[rows], mask[rows], loss=name)[1]

    both = stats(slice(0, 2), "dapo")
    means = both.means()  # type: ignore[attr-defined]
    assert means["tokens"] == 5
    assert means["clipped_high"] == pytest.approx(1 / 5)
    assert means["clipped_low"] == pytest.approx(1 / 5)
    assert means["ratio"] == pytest.approx((1.5 + 1.1 + 0.5 + 1.5 + 0.5) / 5)
    assert (stats(slice(0, 1), "dapo") + stats(slice(1, 2), "dapo")).means() == means  # type: ignore[operator]
    assert stats(slice(0, 2), "reinforce").means()["clipped_high"] == 0  # type: ignore[attr-defined]


def test_wrong_requests_are_named() -> None:
    batch = step_batch()
    with pytest.raises(ValueError, match="unknown loss"):
        loss_of("ppo", some_logprobs(batch), batch)
    with pytest.raises(ValueError, match="sequence"):
        policy_loss(some_logprobs(batch), None, batch.advantages, batch.mask, loss="vespo", level="sequence")
    for options in ({"temperature": 1.0}, {"temperature_pos": 0}, {"temperature_pos": "1"}, {"temperature_pos": True}):
        with pytest.raises(ValueError, match="sapo"):
            policy_loss(some_logprobs(batch), None, batch.advantages, batch.mask, loss="sapo", options=options)
    with pytest.raises(ValueError, match="ref_logprobs"):
        loss_of("dapo", some_logprobs(batch), replace(batch, ref_logprobs=None), 0.1)

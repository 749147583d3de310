"""Importance weights between sampler and scorer: nothing where they agree, unbiased where they do not, bounded always."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite.grpo import effective_sample_size, losses, policy_loss, truncated_weights


def rows(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(6, 5, generator=generator) - 0.1
    mask = (torch.arange(5) < torch.randint(1, 6, (6, 1), generator=generator)).float()
    return logprobs, mask, torch.randn(6, generator=generator)


@pytest.mark.parametrize("name", losses.names())
def test_without_a_gap_every_loss_is_what_it_was_bit_for_bit(name: str) -> None:
    logprobs, mask, advantages = rows()
    found = []
    for corrected in (False, True):
        leaf = logprobs.clone().requires_grad_()
        level = losses.get(name).at(None)
        weights = truncated_weights(leaf, logprobs, mask, level=level) if corrected else None
        loss, _ = policy_loss(leaf, None, advantages, mask, loss=name, correction=weights)
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", losses.names())
def test_a_gap_weighs_every_token_of_every_loss_but_not_its_kl_term(name: str) -> None:
    logprobs, mask, advantages = rows()
    level = losses.get(name).at(None)
    sampled = logprobs - 0.1 * torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(3))
    weights = truncated_weights(logprobs, sampled, mask, level=level)
    parts = []
    for row in range(len(logprobs)):
        leaf = logprobs.clone().requires_grad_()
        only = torch.zeros_like(advantages)
        only[row] = advantages[row]
        policy_loss(leaf, None, only, mask, loss=name)[0].backward()
        assert leaf.grad is not None
        parts.append(leaf.grad)
    leaf = logprobs.clone().requires_grad_()
    policy_loss(leaf, None, advantages, mask, loss=name, correction=weights)[0].backward()
    if level == "token":
        torch.testing.assert_close(leaf.grad, sum(parts) * weights * mask)
    else:
        torch.testing.assert_close(leaf.grad, sum(parts) * weights)
    still = torch.zeros_like(advantages)
    plain, weighed = (
        policy_loss(logprobs, None, still, mask, loss=name, correction=c, ref_logprobs=sampled, kl_coef=0.5)[0]
        for c in (None, weights)
    )
    assert torch.equal(plain, weighed)


def test_weights_of_tokens_make_a_mean_under_the_sampler_one_under_the_scorer() -> None:
    """On a vocabulary of four, over every token: sum of mu * w * f = sum of pi * f while no weight is cut."""
    generator = torch.Generator().manual_seed(0)
    scored, sampled = (torch.randn(4, generator=generator).mul(0.2).log_softmax(-1)[None] for _ in range(2))
    values = torch.randn(1, 4, generator=generator)
    weights = truncated_weights(scored, sampled, torch.ones(1, 4))
    torch.testing.assert_close((sampled.exp() * weights * values).sum(), (scored.exp() * values).sum())


@given(st.lists(st.floats(-60, 0), min_size=1, max_size=6), st.lists(st.floats(-60, 0), min_size=6, max_size=6))
def test_weights_lie_between_nothing_and_the_limit(first: list[float], second: list[float]) -> None:
    scored, sampled = torch.tensor([first]), torch.tensor([second[: len(first)]])
    mask = torch.ones_like(scored)
    mask[:, -1] = 0
    token = truncated_weights(scored, sampled, mask)
    assert ((token >= 0) & (token <= 2)).all()
    assert (token[:, -1] == 1).all()
    row = truncated_weights(scored, sampled, mask, level="sequence")
    product = math.exp(min(50.0, float((scored - sampled)[0, :-1].sum())))
    assert row.item() == pytest.approx(min(2.0, product), rel=1e-4)


def test_what_is_masked_may_hold_anything() -> None:
    mask = torch.tensor([[1.0, 0.0]])
    weights = truncated_weights(torch.tensor([[-1.0, math.nan]]), torch.tensor([[-1.0, -math.inf]]), mask)
    assert weights.tolist() == [[1.0, 1.0]]


def test_the_effective_sample_size_counts_what_is_left() -> None:
    assert effective_sample_size(torch.tensor([0.0, -200.0, -200.0, -200.0])) == pytest.approx(0.25)
    assert effective_sample_size(torch.tensor([900.0, 900.0])) == 1.0

"""The next token: its distribution, its log-probability, and the filters of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from rlvr_lite.config import SamplingConfig
from rlvr_lite.sampling import choose


def draw(logits: Tensor, sampling: SamplingConfig, samples: int, seed: int = 0) -> Tensor:
    """Counts ``[V]`` of many samples from one row of logits."""
    uniforms = torch.from_numpy(np.random.default_rng(seed).random(samples))
    tokens, _ = choose(logits.expand(samples, -1), uniforms, sampling)
    return tokens.bincount(minlength=len(logits))


def expected_probabilities(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """Transformers' own processors, in the order that generate applies them."""
    ids, scores = torch.zeros(1, 1, dtype=torch.long), logits[None].double()
    scores = TemperatureLogitsWarper(sampling.temperature)(ids, scores)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    if sampling.min_p:
        scores = MinPLogitsWarper(sampling.min_p)(ids, scores)
    return scores.softmax(-1)[0]


CONFIGS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.6),
    SamplingConfig(top_k=3),
    SamplingConfig(top_p=0.8),
    SamplingConfig(temperature=1.5, top_k=6, top_p=0.7),
    SamplingConfig(top_p=0.01),
    SamplingConfig(top_k=1),
    SamplingConfig(min_p=0.2),
    SamplingConfig(temperature=0.8, top_k=8, top_p=0.9, min_p=0.3),
]


@pytest.mark.parametrize("sampling", CONFIGS, ids=str)
@pytest.mark.parametrize("vocab", [9, 300])
def test_distribution_by_chi_square(vocab: int, sampling: SamplingConfig) -> None:
    logits = 2 * torch.randn(vocab, generator=torch.Generator().manual_seed(vocab))
    samples = 20_000
    expected = samples * expected_probabilities(logits, sampling)
    found = draw(logits, sampling, samples)
    assert (found[expected == 0] == 0).all()
    frequent = expected >= 5
    tail = torch.stack([found[~frequent].sum(), expected[~frequent].sum()])
    statistic = ((found - expected)[frequent] ** 2 / expected[frequent]).sum()
    if tail[1] >= 5:
        statistic = statistic + (tail[0] - tail[1]) ** 2 / tail[1]
    freedom = max(int(frequent.sum()) - 1, 1)
    assert statistic < freedom + 4.5 * (2 * freedom) ** 0.5 + 4


@given(st.integers(1, 700), st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.sampled_from(CONFIGS))
@settings(max_examples=150, deadline=None)
def test_inverts_the_cumulative_distribution(vocab: int, seed: int, uniform: float, sampling: SamplingConfig) -> None:
    logits = 3 * torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed))
    token, logprob = choose(logits, torch.tensor([uniform], dtype=torch.float64), sampling)
    probabilities = expected_probabilities(logits[0], sampling)
    edges = probabilities.cumsum(0)
    assert probabilities[token] > 0
    assert edges[token] >= uniform - 1e-6
    assert token == 0 or edges[token - 1] <= uniform + 1e-6
    torch.testing.assert_close(logprob.double(), probabilities.log()[token], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_fall_on_possible_tokens(uniform: float) -> None:
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, [300, 700]] = 0.0
    token, _ = choose(logits, torch.tensor([uniform], dtype=torch.float64), SamplingConfig())
    assert token.item() == (300 if uniform == 0 else 700)


def test_temperature_zero_is_argmax() -> None:
    logits = torch.randn(5, 50)
    token, logprob = choose(logits, None, SamplingConfig(temperature=0))
    assert torch.equal(token, logits.argmax(-1))
    torch.testing.assert_close(logprob, logits.log_softmax(-1).amax(-1))


def test_half_precision_logits_are_sampled_in_single() -> None:
    logits = torch.randn(8, 300).bfloat16()
    uniforms = torch.rand(8, dtype=torch.float64)
    for a, b in zip(choose(logits, uniforms, CONFIGS[4]), choose(logits.float(), uniforms, CONFIGS[4]), strict=True):
        assert torch.equal(a, b)

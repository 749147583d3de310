"""What top_k, top_p and min_p keep, and scores over what they keep, against transformers' processors and autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from rlvr_lite.grpo import Truncation, token_logprobs
from rlvr_lite.grpo import _truncation as module

CHOSEN = [
    Truncation(top_k=3),
    Truncation(top_p=0.7),
    Truncation(min_p=0.2),
    Truncation(top_k=20, top_p=0.9, min_p=0.05),
]


def processed(logits: torch.Tensor, chosen: Truncation) -> torch.Tensor:
    """Logits with -inf at what transformers leaves out, in the order of ``generate``."""
    ids, scores = torch.zeros(len(logits), 1, dtype=torch.long), logits
    if chosen.top_k:
        scores = TopKLogitsWarper(chosen.top_k)(ids, scores)
    if chosen.top_p < 1:
        scores = TopPLogitsWarper(chosen.top_p)(ids, scores)
    return MinPLogitsWarper(chosen.min_p)(ids, scores) if chosen.min_p else scores


@given(st.integers(2, 700), st.integers(0, 10**6), st.floats(0.5, 4), st.sampled_from(CHOSEN))
@settings(max_examples=100, deadline=None)
def test_keeps_what_transformers_keeps(vocab: int, seed: int, spread: float, chosen: Truncation) -> None:
    logits = spread * torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kept = chosen(logits.softmax(-1)) > 0
    assert torch.equal(kept, processed(logits, chosen).isfinite())


@given(st.integers(1, 700), st.integers(0, 10**6), st.floats(0.01, 0.999), st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_sorting_without_a_look_gives_the_same_nucleus(vocab: int, seed: int, top_p: float, spread: float) -> None:
    weight = (spread * torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed))).softmax(-1)
    expected = Truncation(top_p=top_p)(weight)
    with pytest.MonkeyPatch.context() as patch:
        largest = module._largest
        patch.setattr(module, "_largest", lambda weight, needed, whole: largest(weight, needed, whole=True))
        assert torch.equal(Truncation(top_p=top_p)(weight), expected)
        patch.setattr(module, "_largest", largest)
        patch.setattr(module, "_HEAD", 4)
        assert torch.equal(Truncation(top_p=top_p)(weight), expected)


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_scores_and_gradients_are_over_the_tokens_kept(chosen: Truncation, trained: bool, cap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (40, 60))
    hidden.requires_grad_()
    weight.requires_grad_(trained)
    leaves = [hidden, weight] if trained else [hidden]
    u = 1.5 * hidden @ weight.t()
    z = (u if cap is None else cap * torch.tanh(u / cap)) / 0.8
    kept = processed(z.detach(), chosen).isfinite()
    targets = kept.double().multinomial(1, generator=generator).squeeze(-1)
    targets[:3] = torch.tensor([int((~row).nonzero()[0]) for row in kept[:3]])  # rounding left these out: still scored
    z = z.masked_fill(~kept.scatter(-1, targets[:, None], True), -torch.inf)
    expected = z.log_softmax(-1)
    sign = torch.randn(40, generator=generator, dtype=torch.float64)
    theirs = torch.autograd.grad((sign * expected.gather(-1, targets[:, None]).squeeze(-1)).sum(), leaves)
    found, entropy = token_logprobs(hidden, weight, None, targets, 0.8, scale=1.5, cap=cap, truncation=chosen)
    ours = torch.autograd.grad((sign * found).sum(), leaves)
    torch.testing.assert_close(found, expected.gather(-1, targets[:, None]).squeeze(-1))
    torch.testing.assert_close(entropy, -(expected.exp() * expected.nan_to_num(neginf=0)).sum(-1))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)

"""Log-probabilities against a softmax over all logits: values, gradients, precision and what is kept in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlvr_lite.grpo import logprobs as module
from rlvr_lite.grpo import token_logprobs

VOCAB, WIDTH, POSITIONS = 37, 8, 50


def inputs(dtype: torch.dtype = torch.float64, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    targets = torch.randint(0, VOCAB, (POSITIONS,), generator=generator)
    return normal(POSITIONS, WIDTH), normal(VOCAB, WIDTH), normal(VOCAB) if bias else None, targets


def full(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = hidden @ weight.t() + (0 if bias is None else bias)
    logp = torch.log_softmax(logits / temperature, -1)
    return logp.gather(-1, targets[:, None]).squeeze(-1), -(logp.exp() * logp).sum(-1)


@pytest.fixture(params=[1, 10**6], ids=["many chunks", "one chunk"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", {"cpu": request.param})


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_full_softmax(temperature: float, bias: bool, trained: bool) -> None:
    hidden, weight, shift, targets = inputs(bias=bias)
    leaves = [hidden.requires_grad_()]
    if trained:
        leaves += [x.requires_grad_() for x in (weight, shift) if x is not None]
    signal = torch.linspace(-1, 1, POSITIONS, dtype=torch.float64)
    expected, expected_entropy = full(hidden, weight, shift, targets, temperature)
    wanted = torch.autograd.grad((expected * signal).sum(), leaves)
    found, entropy = token_logprobs(hidden, weight, shift, targets, temperature)
    got = torch.autograd.grad((found * signal).sum(), leaves)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(entropy, expected_entropy)
    assert not entropy.requires_grad
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_only_the_bias_is_trained() -> None:
    hidden, weight, shift, targets = inputs()
    assert shift is not None
    shift.requires_grad_()
    (wanted,) = torch.autograd.grad(full(hidden, weight, shift, targets, 1.0)[0].sum(), shift)
    (got,) = torch.autograd.grad(token_logprobs(hidden, weight, shift, targets)[0].sum(), shift)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("trained", [False, True])
def test_extreme_logits_stay_finite(trained: bool) -> None:
    hidden, weight, _, targets = inputs(torch.float32, bias=False)
    hidden = (hidden * 1e3).requires_grad_()
    weight.requires_grad_(trained)
    found, entropy = token_logprobs(hidden, weight, None, targets)
    found.sum().backward()
    assert found.isfinite().all()
    assert entropy.isfinite().all()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trained", [False, True])
def test_half_precision_keeps_the_softmax_in_single(dtype: torch.dtype, trained: bool) -> None:
    hidden, weight, _, targets = inputs(dtype, bias=False)
    hidden.requires_grad_()
    weight.requires_grad_(trained)
    found, entropy = token_logprobs(hidden, weight, None, targets, 0.9)
    found.sum().backward()
    assert found.dtype == entropy.dtype == torch.float32
    # The products are rounded to the dtype once; a softmax in the dtype would add errors of its own.
    logits = (hidden @ weight.t()).detach().float() / 0.9
    expected = torch.log_softmax(logits, -1).gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    exact_hidden = hidden.detach().double().requires_grad_()
    full(exact_hidden, weight.detach().double(), None, targets, 0.9)[0].sum().backward()
    assert hidden.grad is not None
    assert exact_hidden.grad is not None
    error = (hidden.grad.double() - exact_hidden.grad).norm() / exact_hidden.grad.norm()
    assert error < (2e-2 if dtype == torch.bfloat16 else 4e-3)


@pytest.mark.parametrize("trained", [False, True])
def test_autocast_gives_what_half_precision_inputs_give(trained: bool) -> None:
    hidden, weight, bias, targets = inputs(torch.float32)
    assert bias is not None
    hidden.requires_grad_()
    weight.requires_grad_(trained)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = token_logprobs(hidden, weight, bias, targets)
    found.sum().backward()  # outside of autocast, as trainers do
    expected, _ = token_logprobs(hidden.detach().bfloat16(), weight.detach().bfloat16(), bias.bfloat16(), targets)
    torch.testing.assert_close(found, expected)
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32
    assert (weight.grad is not None) == trained


@pytest.mark.parametrize("trained", [False, True])
def test_nothing_of_vocabulary_width_is_kept(trained: bool) -> None:
    positions, width, vocab = 64, 4, 5000
    hidden = torch.randn(positions, width).requires_grad_()
    weight = torch.randn(vocab, width).requires_grad_(trained)
    kept: list[int] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        token_logprobs(hidden, weight, None, torch.zeros(positions, dtype=torch.long))
    assert max(kept) <= max(positions * width, weight.numel() if trained else 0)


def test_a_frozen_head_costs_two_products() -> None:
    hidden, weight, _, targets = inputs(torch.float32, bias=False)
    hidden.requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        token_logprobs(hidden, weight, None, targets)[0].sum().backward()
    assert sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm")) == 2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
        token_logprobs(hidden, weight, None, targets)
    assert sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm")) == 1


def test_no_positions() -> None:
    hidden, weight, bias, targets = inputs()
    found, entropy = token_logprobs(hidden[:0], weight, bias, targets[:0])
    assert found.shape == entropy.shape == (0,)

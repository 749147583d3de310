"""The promise of this room: every saving, alone and together, leaves the gradient of every loss as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlvr_lite.grpo import (
    Packer,
    RolloutBatch,
    completion_logprobs,
    keep_informative,
    losses,
    micro_batches,
    policy_loss,
    row_weights,
    trim,
)
from tests.grpo.reference import full_logprobs, full_loss, gradients, relative, step_batch
from tests.grpo.test_packing import Always
from tests.models import random_qwen2

MAX_LENGTH, TEMPERATURE = 20, 0.8
SAVINGS = {
    "none": (),
    "drop": ("drop",),
    "trim": ("trim",),
    "pack": ("pack",),
    "split": ("split",),
    "all": ("drop", "trim", "pack", "split"),
}


def lora_model() -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(random_qwen2(tied=False), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def saved_gradient(
    model: Any, name: str, batch: RolloutBatch, savings: tuple[str, ...], kl_coef: float = 0.0, **form: Any
) -> torch.Tensor:
    """Gradient of the step with the given savings; ``form`` is the loss's level and options."""
    weights = row_weights(batch.mask.sum(-1), loss=name, max_length=MAX_LENGTH)
    batch = replace(batch, weights=weights)
    if "drop" in savings:
        batch = batch.rows(keep_informative(batch.advantages, batch.mask, kl_coef=kl_coef))
    if "trim" in savings:
        batch = trim(batch)
    packer = Always() if "pack" in savings else None
    for part in micro_batches(batch, 3) if "split" in savings else [batch]:
        logprobs, _ = completion_logprobs(
            model, part.prompt_ids, part.prompt_mask, part.completions, part.mask, TEMPERATURE, packer=packer
        )
        loss, _ = policy_loss(
            logprobs,
            part.old_logprobs,
            part.advantages,
            part.mask,
            loss=name,
            ref_logprobs=part.ref_logprobs,
            kl_coef=kl_coef,
            weights=part.weights,
            **form,
        )
        loss.backward()
    assert packer is None or packer.packed
    return gradients(model)


@pytest.mark.parametrize("savings", SAVINGS.values(), ids=SAVINGS)
@pytest.mark.parametrize("name", losses.names())
def test_the_gradient_stays(name: str, savings: tuple[str, ...]) -> None:
    model = lora_model()
    batch = step_batch(prompt=12, length=15)
    with torch.no_grad():  # some updates away from the samples, so that ratios differ from 1 and some are clipped
        batch = replace(
            batch, old_logprobs=full_logprobs(model, batch, TEMPERATURE) + 0.3 * torch.randn(batch.mask.shape)
        )
    full_loss(name, full_logprobs(model, batch, TEMPERATURE), batch, max_length=MAX_LENGTH).backward()
    expected = gradients(model)
    assert relative(saved_gradient(model, name, batch, savings), expected) < 1e-5


def test_the_gradient_stays_with_a_kl_term() -> None:
    model, batch = lora_model(), step_batch()
    batch = replace(batch, old_logprobs=None, ref_logprobs=full_logprobs(model, batch, TEMPERATURE).detach() + 0.1)
    full_loss("dapo", full_logprobs(model, batch, TEMPERATURE), batch, max_length=MAX_LENGTH, kl_coef=0.1).backward()
    expected = gradients(model)
    found = saved_gradient(model, "dapo", batch, SAVINGS["all"], kl_coef=0.1)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_the_gradient_stays_when_everything_is_trained(tied: bool) -> None:
    model, batch = random_qwen2(tied=tied), replace(step_batch(), old_logprobs=None)
    full_loss("grpo", full_logprobs(model, batch, TEMPERATURE), batch, max_length=MAX_LENGTH).backward()
    expected = gradients(model)
    assert relative(saved_gradient(model, "grpo", batch, SAVINGS["all"]), expected) < 1e-5


def test_a_step_without_signal_has_a_zero_loss() -> None:
    batch = replace(step_batch(dead=5), old_logprobs=None)
    assert not len(keep_informative(batch.advantages, batch.mask))
    model = lora_model()
    logprobs, entropy = completion_logprobs(
        model, batch.prompt_ids[:0], batch.prompt_mask[:0], batch.completions[:0], batch.mask[:0], packer=Packer()
    )
    assert logprobs.shape == entropy.shape == (0, batch.mask.shape[1])

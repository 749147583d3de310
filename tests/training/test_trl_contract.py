"""What this trainer takes from TRL's, pinned: the hooks it overrides and the gradient they must agree on."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
import trl
from trl.trainer import utils as trl_utils

from rlvr_lite.bases._tiny_tokenizer import build_tokenizer
from rlvr_lite.errors import UserError
from tests.training.helpers import arguments, dataset, gradients, letters, policy, relative, sparse, trainer


def test_hooks_have_the_signatures_that_are_overridden():
    expected = {
        "_prepare_inputs": ["self", "generation_batch"],
        "_compute_loss": ["self", "model", "inputs"],
        "training_step": ["self", "model", "inputs", "num_items_in_batch"],
        "get_train_dataloader": ["self"],
        "create_optimizer": ["self", "model"],
        "log": ["self", "logs", "start_time"],
        "evaluate": ["self", "eval_dataset", "ignore_keys", "metric_key_prefix"],
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
        "_load_optimizer_and_scheduler": ["self", "checkpoint"],
        "_load_scaler": ["self", "checkpoint"],
        "_load_rng_state": ["self", "checkpoint"],
    }
    for name, parameters in expected.items():
        assert list(inspect.signature(getattr(trl.GRPOTrainer, name)).parameters) == parameters, name


class _TorchHead:
    """In place of TRL 1.15's head, which has no implementation without Triton."""

    @staticmethod
    def apply(hidden, weight, bias, targets, temperature, chunk, softcap=None, scale=1.0, outputs=("log_probs",)):
        logprobs = torch.log_softmax((hidden @ weight.t()).float() * scale / temperature, -1)
        entropy = -(logprobs.exp() * logprobs).sum(-1) if "entropy" in outputs else None
        return logprobs.gather(-1, targets[:, None]).squeeze(-1), entropy, None, None, None


def _stock_gradient(folder, batch, loss, accumulation, **options):
    """Gradient of TRL's own ``_compute_loss`` on the rows of a generation batch, in its own batch layout."""
    beta = options.pop("beta", 0.0)  # set afterwards: TRL would put a copy of the adapter on the model
    stock = trl.GRPOTrainer(
        policy(spread=0.05),
        letters,
        arguments(
            folder, loss_type="grpo" if loss == "gspo" else loss, gradient_accumulation_steps=accumulation, **options
        ),
        dataset(),
        processing_class=build_tokenizer(),
    )
    if "1.15" in trl.__version__:
        trl_utils._ChunkedLogProbFunction = _TorchHead
    stock.model.train()
    stock.current_gradient_accumulation_steps = accumulation
    for rows in torch.arange(len(batch)).chunk(stock.args.steps_per_generation)[:accumulation]:
        part = batch.rows(rows)
        inputs = {
            "prompt_ids": part.prompt_ids,
            "prompt_mask": part.prompt_mask,
            "completion_ids": part.completions,
            "completion_mask": part.mask,
            "advantages": part.advantages,
            "num_items_in_batch": batch.mask.sum().float(),
        }
        if part.old_logprobs is not None:
            inputs["old_per_token_logps"] = part.old_logprobs
        if part.ref_logprobs is not None:
            inputs["ref_per_token_logps"] = part.ref_logprobs
        stock.beta = beta
        stock._compute_loss(stock.model, inputs).backward()
    return gradients(stock.model)


def _our_gradient(folder, accumulation, gap=0.0, **options):
    """Gradient of the first update on a generation batch; ``gap`` moves the policy that sampled it away from the trained one."""
    ours = trainer(folder, policy(spread=0.05), **options, gradient_accumulation_steps=accumulation)
    ours.model.train()
    ours.current_gradient_accumulation_steps = accumulation
    scored, noise = ours.scored, torch.Generator().manual_seed(2)

    def moved(rollouts):
        batch = scored(rollouts)
        old = batch.old_logprobs + gap * torch.randn(batch.old_logprobs.shape, generator=noise)
        return dataclasses.replace(batch, old_logprobs=old, sampled_logprobs=old)  # it scored as it sampled

    if gap:
        ours.scored = moved
    for _ in range(accumulation):
        batch = ours._prepare_inputs(None)
        ours.accumulate(batch)
        ours._step += 1
    return gradients(ours.model), ours._generation_batch


LOSSES = ["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "gspo", "sapo", "luspo", "vespo"]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_equals_that_of_trl(tmp_path, loss, accumulation):
    """Rows without signal dropped, padding trimmed, micro-batches of five rows: still TRL's gradient."""
    options = {"per_device_train_batch_size": 16 // accumulation}
    if loss == "gspo":
        options |= {"importance_sampling_level": "sequence"}
    if loss == "cispo":
        options |= {"epsilon_high": 5.0}
    name = "grpo" if loss == "gspo" else loss
    ours, batch = _our_gradient(tmp_path, accumulation, reward=sparse, micro_batch=5, loss_type=name, **options)
    assert 0 < int((batch.advantages == 0).sum()) < len(batch)
    theirs = _stock_gradient(tmp_path, batch, loss, accumulation, **options)
    assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_equals_that_of_trl_when_a_generation_batch_serves_two_updates(tmp_path, loss):
    """The policy has moved away from the one that sampled, so that every loss clips."""
    options = {"per_device_train_batch_size": 4, "steps_per_generation": 4}
    if loss == "gspo":
        options |= {"importance_sampling_level": "sequence"}
    if loss == "cispo":
        options |= {"epsilon_high": 1.2}
    name = "grpo" if loss == "gspo" else loss
    ours, batch = _our_gradient(tmp_path, 2, gap=0.5, reward=sparse, loss_type=name, **options)
    plain, _ = _our_gradient(tmp_path, 2, reward=sparse, loss_type=name, **options)
    assert relative(ours, _stock_gradient(tmp_path, batch, loss, 2, **options)) < 1e-5 < relative(ours, plain)


def test_gradient_equals_that_of_trl_with_a_kl_term(tmp_path):
    ours, batch = _our_gradient(tmp_path, 1, reward=sparse, micro_batch=5, loss_type="dapo", beta=0.1)
    assert batch.ref_logprobs is not None
    theirs = _stock_gradient(tmp_path, batch, "dapo", 1, beta=0.1)
    without, _ = _our_gradient(tmp_path, 1, reward=sparse, loss_type="dapo")
    assert relative(ours, theirs) < 1e-5 < relative(without, theirs)


def test_old_policy_is_kept_when_rollouts_are_used_twice(tmp_path):
    """After an update the ratio is no longer 1, and TRL's clipped gradient on the same rows is ours."""
    ours = trainer(tmp_path, policy(spread=0.05), num_iterations=2, learning_rate=0.3, max_steps=2)
    seen = []
    original = ours.accumulate
    ours.accumulate = lambda batch: (seen.append(batch), original(batch))[1]
    ours.train()
    first, second = seen
    assert torch.equal(first.old_logprobs, second.old_logprobs)
    assert max(row["clip_ratio/low_mean"] + row["clip_ratio/high_mean"] for row in ours.metrics_log.rows()) > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("entropy_coef", 0.1),
        ("repetition_penalty", 1.2),
        ("loss_type", "ppo"),
        ("vespo_k_pos", 1.0),
        ("sync_ref_model", True),
        ("load_best_model_at_end", True),
    ],
)
def test_settings_that_are_not_honoured_raise(tmp_path, field, value):
    with pytest.raises(UserError, match=field):
        trainer(tmp_path, **{field: value})


def test_group_size_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        trainer(tmp_path, num_generations=1)

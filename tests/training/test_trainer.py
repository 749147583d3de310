"""What a step does to the policy, and what it does not."""

from __future__ import annotations

import json

import pytest
import torch

from rlvr_lite import AdapterConfig, methods
from rlvr_lite.errors import UserError
from tests.training.helpers import letters, policy, relative, sparse, step_gradient, trained, trainer


def test_micro_batches_add_up_to_the_whole(tmp_path):
    whole = step_gradient(trainer(tmp_path, policy(spread=0.05)))
    split = step_gradient(trainer(tmp_path, policy(spread=0.05), micro_batch=3))
    assert relative(split, whole) < 1e-5


def test_a_micro_batch_that_does_not_fit_in_memory_is_halved(tmp_path):
    whole = step_gradient(trainer(tmp_path, policy(spread=0.05)))
    made = trainer(tmp_path, policy(spread=0.05))
    original, sizes = made._compute_loss, []

    def scarce(model, rows):
        sizes.append(len(rows))
        loss = original(model, rows)
        if len(rows) > 3:
            (loss * 7).backward()  # a pass that breaks off has left part of a gradient behind
            raise torch.OutOfMemoryError("scarce")
        return loss

    logged = []
    made._compute_loss, made._log_micro_batches = scarce, lambda *_: logged.extend(made._measured)
    assert relative(step_gradient(made), whole) < 1e-5
    assert max(sizes) > 3 >= sizes[-1]
    rows = [size for size in sizes if size <= 3]
    assert len(logged) == len(rows)  # what broke off is not measured twice


def test_one_row_that_does_not_fit_is_an_error_with_advice(tmp_path):
    made = trainer(tmp_path)

    def none(model, rows):
        raise torch.OutOfMemoryError("none")

    made._compute_loss = none
    with pytest.raises(UserError, match="gradient_checkpointing"):
        step_gradient(made)


def test_sampling_is_halved_when_memory_is_scarce_and_gives_the_same_answers(tmp_path, monkeypatch):
    from rlvr_lite import sampling

    plain = trainer(tmp_path).collector.collect(0)
    original = sampling.rollout

    def scarce(model, ids, mask, **options):
        if len(ids) > 1:
            raise torch.OutOfMemoryError("scarce")
        return original(model, ids, mask, **options)

    monkeypatch.setattr(sampling, "rollout", scarce)
    split = trainer(tmp_path).collector.collect(0)
    assert [s["completion"] for s in split.samples] == [s["completion"] for s in plain.samples]
    assert torch.equal(split.rollouts.completions, plain.rollouts.completions)


def test_adaloras_budget_moves_while_it_trains(tmp_path):
    """Its schedule is called from the loop; without that every rank it started with stays."""
    model = policy("adalora")
    start = methods.identity(model, "adalora", AdapterConfig(rank=4)).budget["used"]
    trainer(tmp_path, model, method="adalora", max_steps=4).train()
    budget = methods.identity(model, "adalora", AdapterConfig(rank=4)).budget
    assert budget["used"] == budget["target"] < start


def test_doras_norms_are_taken_once_an_optimizer_step(tmp_path, monkeypatch):
    """Sampling, scoring, every micro-batch and what gradient checkpointing computes anew take the same ones."""
    from rlvr_lite.methods._fast_dora import FastMagnitude
    from rlvr_lite.methods._lora import lora_layers

    model, taken, inner = policy("dora", spread=0.05), [], FastMagnitude._taken
    options = {"method": "dora", "max_steps": 3, "micro_batch": 3, "gradient_checkpointing": True}
    made = trainer(tmp_path, model, gradient_accumulation_steps=2, **options)
    monkeypatch.setattr(FastMagnitude, "_taken", lambda *given: taken.append(1) or inner(*given))
    made.train()
    assert len(taken) == 3 * len(list(lora_layers(model)))


def test_a_step_without_signal_leaves_a_fresh_adapter_alone(tmp_path):
    made = trainer(tmp_path, reward=lambda completions, **_: [1.0] * len(completions), max_steps=2)
    before = trained(made.model)
    made.train()
    assert all(torch.equal(before[n], t) for n, t in trained(made.model).items())
    assert all(row["frac_reward_zero_std"] == 1 and row["grad_norm"] == 0 for row in made.metrics_log.rows())


def test_the_base_stays_bit_equal_and_every_trained_tensor_learns(tmp_path):
    model = policy()
    base = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    start = trained(model)
    made = trainer(tmp_path, model, max_steps=3)
    made.train()
    assert all(torch.equal(base[n], p) for n, p in model.named_parameters() if n in base)
    assert all(not torch.equal(start[n], t) for n, t in trained(model).items())
    assert made.gradients_seen == set(start)


def test_dynamic_sampling_replaces_groups_without_variance(tmp_path):
    plain = trainer(tmp_path, reward=sparse, rows=8).collector.collect(0)
    more = trainer(tmp_path, reward=sparse, rows=8, max_resample=4).collector.collect(0)
    assert more.metrics["groups/kept"] > plain.metrics["groups/kept"]
    assert more.metrics["groups/drawn"] > plain.metrics["groups/drawn"] == 4
    assert more.metrics["tokens/sampled"] > plain.metrics["tokens/sampled"]
    assert len(more.rollouts) == len(plain.rollouts)
    drawn = [sample["prompt"] for sample in more.samples][::4]
    assert len(set(drawn)) == len(drawn)


def test_dynamic_sampling_ends_when_no_group_ever_has_variance(tmp_path):
    made = trainer(tmp_path, reward=lambda completions, **_: [0.0] * len(completions), max_resample=50, max_steps=1)
    made.train()
    assert made.metrics_log.rows()[0]["groups/drawn"] == 8
    assert made.metrics_log.rows()[0]["groups/kept"] == 0


def test_rollouts_log_says_what_was_sampled_and_what_it_earned(tmp_path):
    made = trainer(tmp_path, max_steps=2)
    made.train()
    rows = made.rollout_log.rows()
    assert [row["step"] for row in rows] == [1] * 16 + [2] * 16
    for row in rows:
        assert row["rewards"] == {"letters": row["reward"]}
        assert row["reward"] == letters([[{"content": row["completion"]}]])[0]
    groups = [[row["advantage"] for row in rows[i : i + 4]] for i in range(0, 32, 4)]
    assert all(abs(sum(group)) < 1e-4 for group in groups)
    assert sum(row["tokens"] for row in rows[:16]) == made.metrics_log.rows()[0]["tokens/sampled"]


def test_truncated_completions_can_be_left_out_of_the_loss(tmp_path):
    kept = trainer(tmp_path).collector.collect(0).rollouts
    masked = trainer(tmp_path, mask_truncated_completions=True).collector.collect(0).rollouts
    cut = kept.mask.sum(1) == 12
    assert cut.any()
    assert masked.mask[cut].sum() == 0
    assert torch.equal(masked.mask[~cut], kept.mask[~cut])


def test_training_mode_and_dropout_do_not_reach_the_sampler(tmp_path):
    from peft import LoraConfig, get_peft_model

    from tests.models import random_qwen2

    model = get_peft_model(random_qwen2(vocab=128), LoraConfig(r=4, lora_dropout=0.9, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    made = trainer(tmp_path, model, method=None)
    made.model.train()
    first, second = made.collector.collect(0), made.collector.collect(0)
    assert torch.equal(first.rollouts.completions, second.rollouts.completions)
    assert made.model.training


def test_evaluate_reports_the_mean_reward_and_leaves_training_alone(tmp_path):
    from tests.training.helpers import dataset

    plain, watched = trainer(tmp_path / "a", max_steps=2), trainer(tmp_path / "b", max_steps=2)

    def measured():
        times = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
        return {name: value for name, value in watched.evaluate(dataset(4)).items() if name not in times}

    before = measured()
    assert set(before) >= {"eval_reward", "eval_rewards/letters/mean", "eval_completions/mean_length"}
    assert before == measured()
    plain.train()
    watched.train()
    assert all(torch.equal(t, trained(plain.model)[n]) for n, t in trained(watched.model).items())


def test_a_method_with_its_own_optimizer_gets_it(tmp_path):
    made = trainer(tmp_path, policy("lora"), method="lora", max_steps=1)
    optimizer = made.create_optimizer()
    assert [group["name"] for group in optimizer.param_groups] == [
        group["name"] for group in methods.optimizer(made.model, "lora", 1e-2, 0.0).param_groups
    ]


def test_metrics_are_plain_json_numbers(tmp_path):
    made = trainer(tmp_path, max_steps=1)
    made.train()
    (line,) = made.metrics_log.path.read_text().splitlines()
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert {"reward", "loss", "grad_norm", "entropy", "step_time", "tokens/per_second"} <= row.keys()

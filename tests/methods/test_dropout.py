"""Dropout of the LoRA family, and the random-direction start: what they do to policy, gradient and resumed runs."""

from __future__ import annotations

import pytest
import torch

from rlvr_lite import grpo, methods, train
from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods import _starts, on_unsloth
from rlvr_lite.methods._lora import ADAPTER, lora_layers
from rlvr_lite.training import GRPOTrainer
from tests.methods import cells

WITH_DROPOUT = ["lora", "pissa", "pissa:residual", "milora", "milora:residual"]


def dropping(share: float) -> AdapterConfig:
    return AdapterConfig(rank=8, options={"dropout": share})


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_dropout_acts_in_training_and_never_while_sampling(name):
    model = cells.trained("fp32", name, dropping(0.5))
    assert torch.equal(cells.logits(model), cells.logits(model))
    model.train()
    with torch.no_grad():
        first, second = (model(cells.PROMPT).logits for _ in range(2))
    assert not torch.equal(first, second)
    with grpo.eval_mode(model):
        assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.Dropout))


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_without_dropout_training_and_sampling_say_the_same(name):
    model = cells.trained("fp32", name, dropping(0.0))
    model.train()
    with torch.no_grad():
        assert torch.equal(model(cells.PROMPT).logits.float(), cells.logits(model))


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_only_the_residual_form_feels_dropout_at_step_0(name):
    """Its base lacks the start, so dropping inputs of the adapter drops part of the policy; nothing else has one yet."""
    model = cells.attach("fp32", name, dropping(0.5))
    still = cells.logits(model)
    model.train()
    with torch.no_grad():
        moved = (model(cells.PROMPT).logits.float() - still).abs().max()
    # delta form: (B A - B0 A0) x is zero for whatever x is
    assert (moved > 1e-2) == name.endswith(":residual")


def test_inputs_of_the_adapter_are_dropped_and_the_rest_is_scaled_up():
    model = cells.trained("fp32", "lora", dropping(0.25)).train()
    _, layer = next(lora_layers(model))
    x = torch.ones(1, 20_000)
    kept = layer.lora_dropout[ADAPTER](x)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert kept.mean().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("share", [-0.1, 0.95, 1.0, float("nan"), "some"])
def test_a_share_that_means_nothing_is_refused(share):
    with pytest.raises(UserError, match="dropout"):
        methods.resolve("lora", AdapterConfig(options={"dropout": share}), "tiny")


def test_fused_kernels_that_know_no_dropout_are_not_taken():
    assert on_unsloth("lora", "nf4").route == "fused"
    assert on_unsloth("lora", "nf4", dropping(0.05)).route == "hosted"


def test_rows_that_share_a_prompt_are_not_packed_under_dropout():
    model = cells.attach("fp32", "lora", dropping(0.1))
    packer = grpo.Packer()
    assert packer.supports(model) is None
    model.train()
    assert "dropout" in (packer.supports(model) or "")
    model = cells.attach("fp32", "lora", dropping(0.0)).train()
    assert packer.supports(model) is None


TINY = {"steps": 2, "prompts_per_step": 4, "group_size": 4, "eval_problems": 0, "progress": False, "rank": 4}


def run(tmp_path, name, **more):
    options = {"method_options": {"dropout": 0.3}, "task_options": {"operands": 2}, **TINY, **more}
    return train("lora", out=tmp_path / name, **options)


def state(run):
    from safetensors.torch import load_file

    return load_file(run.files.adapter / "adapter_model.safetensors")


def test_a_run_with_dropout_is_repeatable_and_other_than_one_without(tmp_path):
    first, again = state(run(tmp_path, "a")), state(run(tmp_path, "b"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    without = state(run(tmp_path, "c", method_options={}))
    assert any(not torch.equal(first[name], without[name]) for name in first)


def test_a_run_with_dropout_that_was_killed_before_its_first_checkpoint_ends_the_same(tmp_path, monkeypatch):
    whole = state(run(tmp_path, "whole"))

    def kill(self, *args, **kwargs):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(GRPOTrainer, "train", kill)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path, "killed")
    assert (tmp_path / "killed" / "preflight.json").exists()
    resumed = state(run(tmp_path, "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_gradient_checkpointing_replays_the_same_mask(tmp_path):
    plain = state(run(tmp_path, "plain"))
    recomputed = state(run(tmp_path, "recomputed", gradient_checkpointing=True))
    for name in plain:
        assert torch.allclose(plain[name], recomputed[name], atol=1e-5)


def test_random_directions_are_orthonormal_differ_by_seed_and_ignore_the_base():
    adapter = AdapterConfig(rank=8)
    models = [cells.attach("fp32", "random_directions", adapter, seed=seed) for seed in (0, 0, 1)]
    for (_, one), (_, same), (_, other) in zip(*(lora_layers(m) for m in models), strict=True):
        a, b, c = (layer.lora_A[ADAPTER].weight for layer in (one, same, other))
        assert torch.allclose(a @ a.T, torch.eye(8), atol=1e-5)
        assert torch.equal(a, b)
        assert not torch.allclose(a, c, atol=0.1)
        assert not one.lora_B[ADAPTER].weight.any()


def test_random_directions_hold_no_more_of_the_base_than_chance():
    torch.manual_seed(0)
    weight = torch.randn(64, 64) @ torch.diag(torch.linspace(4, 0.1, 64)) @ torch.randn(64, 64)
    vh = torch.linalg.svd(weight).Vh
    inside = [(_starts.orthonormal_random(weight, 8, 1.0)[0] @ vh[:8].T).square().sum() / 8 for _ in range(200)]
    assert torch.stack(inside).mean().item() == pytest.approx(8 / 64, abs=0.01)
    first = torch.stack([_starts.orthonormal_random(weight, 8, 1.0)[0][0, 0] for _ in range(200)])
    assert abs(first.mean().item()) < 3 / 64**0.5 / 200**0.5  # both signs, as a uniform draw has


def test_the_adapters_dropout_survives_saving(tmp_path):
    model = cells.trained("fp32", "lora", dropping(0.05))
    methods.save(model, tmp_path / "adapter")
    again = methods.load(cells.fresh("fp32"), tmp_path / "adapter")
    assert methods.attachment(again).build.adapter == methods.attachment(model).build.adapter
    assert torch.equal(cells.logits(model), cells.logits(again))

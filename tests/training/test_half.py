"""fp16 with a gradient scaler, on a CPU that stands in for a card below compute capability 8.0."""

from __future__ import annotations

import pytest
import torch

from rlvr_lite import AdapterConfig, bases, methods
from tests.training.helpers import relative, trained, trainer


@pytest.fixture
def half(monkeypatch):
    """Makes trainers as accelerate sets them up for fp16 on a GPU."""

    def make(folder, scale=2.0**10, **options):
        made = trainer(folder, **options)
        monkeypatch.setattr(made.accelerator.state, "_mixed_precision", "fp16")  # shared by all accelerators
        made.accelerator.native_amp = True
        made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
        return made

    return make


def test_adapters_stay_in_single_precision_and_learn_what_they_would_without(tmp_path, half):
    start = trained(trainer(tmp_path / "c").model)
    precise, coarse = trainer(tmp_path / "a", max_steps=1), half(tmp_path / "b", max_steps=1)
    precise.train()
    coarse.train()
    assert {p.dtype for p in coarse.model.parameters() if p.requires_grad} == {torch.float32}
    assert all(not torch.equal(t, start[n]) for n, t in trained(coarse.model).items() if "lora_B" in n)
    rows = [made.metrics_log.rows()[0] for made in (precise, coarse)]
    assert (
        rows[0]["sampling/sampling_logp_difference/max"] < 1e-5 < rows[1]["sampling/sampling_logp_difference/max"]
    )  # it was fp16
    norms = [row["grad_norm"] for row in rows]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


def test_adapters_on_a_base_of_4_bits_keep_their_precision(tmp_path):
    """TRL rounds them to bf16, where an update at the learning rates of RL is lost."""
    base = bases.load("tiny", "nf4")
    model = methods.attach(base.model, "lora", AdapterConfig(rank=4), total_steps=4, seed=0)
    before = trained(model)
    made = trainer(tmp_path, model)
    assert {p.dtype for p in made.model.parameters() if p.requires_grad} == {torch.float32}
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained(made.model).items())


def test_a_step_that_overflows_is_skipped_and_the_scale_comes_down(tmp_path, half):
    made = half(tmp_path, scale=2.0**60, max_steps=1)
    before = trained(made.model)
    made.train()
    assert relative(trained(made.model), before) == 0
    assert made.accelerator.scaler.get_scale() == 2.0**59


def test_the_scale_is_resumed(tmp_path, half):
    whole = half(tmp_path / "whole", max_steps=5)
    whole.train()
    first = half(tmp_path / "broken", max_steps=5, save_strategy="steps", save_steps=3)
    first.train()
    second = half(tmp_path / "broken", scale=2.0**3, max_steps=5)
    second.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-3"))
    assert whole.accelerator.scaler.state_dict() == second.accelerator.scaler.state_dict()
    assert whole.accelerator.scaler.get_scale() > 2.0**10
    assert all(torch.equal(t, trained(second.model)[n]) for n, t in trained(whole.model).items())

"""AdaLoRA's budget, penalty and allocator."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel

from rlvr_lite import methods
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods import _budget
from tests.methods import cells

R4 = AdapterConfig(rank=4, alpha=8, options={"every": 1})


def used(model) -> int:
    return sum(int(p.count_nonzero()) for n, p in cells.trainable(model).items() if "lora_E" in n)


def run(model, steps: range) -> list[int]:
    optimizer, ranks = methods.optimizer(model, "adalora", 1e-2), []
    for step in steps:
        cells.train(model, "adalora", optimizer, range(step, step + 1))
        ranks.append(used(model))
    return ranks


@pytest.mark.parametrize("total", [12, 20, 41])
def test_ranks_fall_on_schedule_to_the_target_and_stay_there(total):
    model = cells.attach("fp32", "adalora", R4, steps=total)
    ranks = run(model, range(1, total + 1))
    start, target, warm, end = 14 * 6, 14 * 4, total // 5, total - total // 4
    for step, have in enumerate(ranks, start=1):
        share = (1 - (step - warm) / (end - warm)) ** 3
        expected = start if step <= warm else target if step >= end else int((start - target) * share + target)
        assert have == expected, step
    budget = methods.identity(model, "adalora", R4).budget
    assert budget == {"used": target, "target": target, "final": 1}


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5])
def test_the_shortest_runs_end_at_the_target_too(total):
    model = cells.attach("fp32", "adalora", R4, steps=total)
    run(model, range(1, total + 1))
    assert methods.identity(model, "adalora", R4).budget == {"used": 56, "target": 56, "final": 1}


def test_steps_without_a_signal_do_not_empty_the_layers():
    """With all advantages zero nothing has a gradient, every importance ties at zero, and the budget must still hold."""
    model = cells.attach("fp32", "adalora", R4, steps=8)
    for step in range(1, 9):
        methods.after_backward(model, "adalora", step)
    pattern = model.peft_config["default"].rank_pattern
    assert sum(map(sum, pattern.values())) == 56


def test_the_most_important_triplets_stay():
    model = cells.attach("fp32", "adalora", R4, steps=10)
    allocator = model.base_model.rankallocator
    names = [n % "lora_E" for n in allocator.name_set]
    for name, p in model.base_model.model.named_parameters():
        if "lora_" in name:
            allocator.exp_avg_ipt[name] = torch.zeros_like(p)
            allocator.exp_avg_unc[name] = torch.ones_like(p)
    allocator.exp_avg_ipt[names[5]][:] = 1.0
    pattern = allocator.mask_to_budget(model.base_model.model, 6)
    assert sum(pattern[names[5]]) == 6
    assert sum(map(sum, pattern.values())) == 6


def test_the_penalty_pulls_both_sides_to_orthonormal():
    model = cells.attach("fp32", "adalora", R4)
    penalty = methods.penalty(model, "adalora")
    expected = []
    for name, p in cells.trainable(model).items():
        if "lora_A" in name:
            expected.append((p @ p.T - torch.eye(6)).norm())
        elif "lora_B" in name:
            expected.append((p.T @ p - torch.eye(6)).norm())
    assert torch.allclose(penalty, 0.1 * torch.stack(expected).mean())
    penalty.backward()
    assert all(bool(p.grad.any()) for n, p in cells.trainable(model).items() if "lora_E" not in n)


@pytest.mark.parametrize("cut", [2, 6, 9])
def test_its_allocator_survives_a_resume_inside_the_schedule(cut):
    whole = cells.attach("fp32", "adalora", R4, steps=12)
    run(whole, range(1, cut + 1))
    resumed = cells.attach("fp32", "adalora", R4, steps=12, seed=5)
    methods.load_trainable_state(resumed, methods.trainable_state(whole))
    assert run(whole, range(cut + 1, 13)) == run(resumed, range(cut + 1, 13))
    assert torch.equal(cells.logits(whole), cells.logits(resumed))


def test_saving_does_not_disturb_training(tmp_path):
    saved, plain = (cells.attach("fp32", "adalora", R4, steps=12) for _ in range(2))
    run(saved, range(1, 9))
    run(plain, range(1, 9))
    methods.save(saved, tmp_path / "adapter")
    assert run(saved, range(9, 13)) == run(plain, range(9, 13))
    assert torch.equal(cells.logits(saved), cells.logits(plain))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")  # PEFT reads AdaLoRA's later
def test_plain_peft_reads_an_adapter_with_an_emptied_layer(tmp_path):
    model = cells.attach("fp32", "adalora", R4, steps=8)
    scores = model.base_model.rankallocator
    run(model, range(1, 3))
    scores.exp_avg_ipt = {n: t * (0 if "layers.0.mlp.up_proj" in n else 1) for n, t in scores.exp_avg_ipt.items()}
    run(model, range(3, 9))
    kept = model.peft_config["default"].rank_pattern
    assert min(map(sum, kept.values())) < max(map(sum, kept.values()))
    methods.save(model, tmp_path / "adapter")
    plain = PeftModel.from_pretrained(cells.fresh("fp32"), tmp_path / "adapter")
    assert torch.allclose(cells.logits(plain), cells.logits(model), atol=1e-5)


def test_the_divisor_is_never_trained():
    model = cells.attach("bf16", "adalora", R4)
    with model.disable_adapter():
        pass
    assert not any("ranknum" in n for n in cells.trainable(model))
    assert _budget.budget(model)["used"] == 84

"""The meter counts what lives, when it lives, and of which kind; what has values keeps them."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from rlvr_lite import grpo, methods
from rlvr_lite.analysis.memory import Step
from rlvr_lite.analysis.meter import Meter
from rlvr_lite.config import AdapterConfig
from rlvr_lite.planning import Runner
from rlvr_lite.planning.measure import _CudaMeter as CudaMeter
from tests.models import random_qwen2

KIB = 1024


def floats(kib):
    return torch.zeros(kib * KIB // 4)


def test_a_storage_counts_once_while_it_lives():
    meter = Meter()
    with meter.phase("p"):
        x = floats(8)
        y = x.view(-1, 2)[1:]
        assert meter.now["activations"] == 8 * KIB
        del x
        assert meter.now["activations"] == 8 * KIB
        del y
        assert meter.now["activations"] == 0
    assert meter.peaks["p"] == {"activations": 8 * KIB, "total": 8 * KIB}


def test_peaks_belong_to_the_phase_they_happen_in():
    meter = Meter()
    with meter.phase("first"):
        kept = floats(4)
        del kept
        kept = floats(2)
    with meter.phase("second"):
        floats(3)
    with meter.phase("first"):
        floats(1)
    assert {name: kinds["total"] for name, kinds in meter.peaks.items()} == {"first": 4 * KIB, "second": 5 * KIB}
    assert kept.numel() == 512


def test_kinds_can_be_named_before_and_after():
    meter = Meter(lambda func, made: "wide" if made.shape[-1] == 2048 else None)
    with meter.phase("p"):
        with meter.kind("optimizer"):
            state = floats(4)
        other, wide = floats(4), floats(8)
        meter.add(other, "gradients")
    assert {k: v for k, v in meter.now.items() if v} == {"optimizer": 4 * KIB, "gradients": 4 * KIB, "wide": 8 * KIB}
    assert len({id(t) for t in (state, other, wide)}) == 3


def test_a_kernel_s_own_memory_raises_the_peak_only():
    meter = Meter(transient={"aten::add.Tensor": lambda a, b, **_: 100 * KIB})
    with meter.phase("p"):
        x = floats(4)
        y = x + x
    assert meter.peaks["p"]["total"] == 108 * KIB
    assert sum(meter.now.values()) == 8 * KIB
    assert y.sum() == 0


def test_positions_keep_their_values_beside_fake_features():
    meter = Meter()
    with FakeTensorMode(allow_non_fake_inputs=True):
        with unset_fake_temporarily():
            mask = torch.tensor([[True, False, True], [False, False, True]])
        features = torch.empty(2, 3, 5)
        with meter.phase("p"):
            positions = torch.arange(3)
            assert (positions + 1).tolist() == [1, 2, 3]
            assert mask.sum().item() == 3
            assert features[mask].shape == (3, 5)
            assert isinstance(features * 2, FakeTensor)
            assert isinstance(torch.zeros(3), FakeTensor)
            assert features.sum().item() == 0
            assert bool((features > 1).any()) is False


class Paged(torch.optim.AdamW):
    """In place of bitsandbytes', whose kernels run on a GPU only: moments that the allocator does not see."""

    def step(self, closure=None):
        super().step()
        for state in self.state.values():
            state["exp_avg"].is_paged = state["exp_avg_sq"].is_paged = True


@pytest.mark.parametrize("kind", [Paged, torch.optim.AdamW])
def test_paged_moments_are_part_of_what_is_measured(monkeypatch, kind):
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1000)
    model = methods.attach(random_qwen2(), "lora", AdapterConfig(rank=4), total_steps=1, seed=0)
    step = Step(
        prompts=1, group_size=2, prompt_length=4, completion_length=4, micro_batch=2, rows=2, checkpointing=False
    )
    meter = CudaMeter()
    runner = Runner(model, "lora", torch.float32, step, "cpu", grpo.Packer(), meter)
    monkeypatch.setattr(methods, "optimizer", lambda model, *_, **__: kind(_trained(model), lr=1e-3))
    runner.step_once()
    moments = 2 * sum(p.nbytes for p in _trained(model)) if kind is Paged else 0
    assert meter.peaks["optimizer"] == meter.peaks["rollout"] == 1000 + moments


def _trained(model):
    return [p for p in model.parameters() if p.requires_grad]

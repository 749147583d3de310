"""Adam's moments are kept small on a GPU, and only there."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch

from rlvr_lite import methods
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods import _optimizers
from tests.models import random_qwen2


@pytest.mark.parametrize("method", ["lora", "lora_plus"])
def test_large_adapters_on_a_gpu_get_paged_moments_in_eight_bits(monkeypatch, method):
    model = methods.attach(random_qwen2(), method, AdapterConfig(rank=4), total_steps=1, seed=0)
    small = methods.optimizer(model, method, 1e-3)
    assert type(small) is torch.optim.AdamW
    made = []
    monkeypatch.setattr(_optimizers, "eight_bit", lambda device, parameters: True)
    monkeypatch.setattr(bitsandbytes.optim, "PagedAdamW8bit", lambda groups, lr: made.append((groups, lr)))
    methods.optimizer(model, method, 1e-3)
    ((groups, rate),) = made
    assert rate == 1e-3
    assert [g["lr"] for g in groups] == [g["lr"] for g in small.param_groups]
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in model.parameters() if p.requires_grad}

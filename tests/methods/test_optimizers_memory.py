"""Adam's moments: in fp32 unless 8 bits are asked for, the same parameters and rates either way."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch

from rlvr_lite import methods
from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from tests.models import random_qwen2


class Paged(torch.optim.SGD):
    """In place of bitsandbytes' AdamW, whose kernels run on a GPU only."""


@pytest.mark.parametrize("method", ["lora", "lora_plus", "lora_fa"])
def test_moments_in_eight_bits_belong_to_the_same_parameters(monkeypatch, method):
    model = methods.attach(random_qwen2(), method, AdapterConfig(rank=4), total_steps=1, seed=0)
    plain = methods.optimizer(model, method, 1e-3)
    assert isinstance(plain, torch.optim.AdamW)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bitsandbytes.optim, "PagedAdamW8bit", Paged)
    paged = methods.optimizer(model, method, 1e-3, eight_bit=True)
    assert type(paged) is Paged
    assert [g["lr"] for g in paged.param_groups] == [g["lr"] for g in plain.param_groups]
    held = [{id(p) for g in o.param_groups for p in g["params"]} for o in (paged, plain)]
    assert held[0] == held[1] == {id(p) for p in model.parameters() if p.requires_grad}


def test_lora_fa_corrects_its_gradient_for_either_optimizer(monkeypatch):
    model = methods.attach(random_qwen2(), "lora_fa", AdapterConfig(rank=4), total_steps=1, seed=0)
    corrected = []
    for eight_bit in (False, True):
        parameters = [p for p in model.parameters() if p.requires_grad]
        for i, p in enumerate(parameters):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
        raw = parameters[0].grad.clone()
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(bitsandbytes.optim, "PagedAdamW8bit", Paged)
            optimizer = methods.optimizer(model, "lora_fa", 1e-9, eight_bit=eight_bit)
        optimizer.step()
        corrected.append([p.grad.clone() for p in parameters])
        assert not torch.allclose(parameters[0].grad, raw)
    assert all(map(torch.equal, *corrected))


def test_eight_bits_need_a_gpu():
    model = methods.attach(random_qwen2(), "lora", AdapterConfig(rank=4), total_steps=1, seed=0)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="needs a CUDA GPU"):
            methods.optimizer(model, "lora", 1e-3, eight_bit=True)

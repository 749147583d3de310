"""The proof fails whenever the model is not what its label says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from rlvr_lite import methods
from rlvr_lite.config import LINEAR_LAYERS, AdapterConfig
from rlvr_lite.methods import attachment, remember
from rlvr_lite.methods._lora import ADAPTER, lora_layers
from tests.methods import cells
from tests.methods.cells import DEFAULT


def failures(model, name: str, adapter: AdapterConfig = DEFAULT, **given) -> str:
    return " | ".join(methods.identity(model, name, adapter, **given).failures)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", ["dora", "vera", "miss", "pissa", "lora_fa", "adalora", "nora"])
def test_plain_lora_under_another_name_is_found_out(name):
    """What the reference implementation of the comparison trains whatever it is asked for."""
    honest = attachment(cells.attach("fp32", name))
    config = LoraConfig(r=16, lora_alpha=32, target_modules=list(LINEAR_LAYERS), task_type="CAUSAL_LM")
    model = get_peft_model(cells.fresh("fp32"), config)
    remember(model, honest)
    assert failures(model, name)


def test_fewer_layers_than_asked_are_found_out():
    model = cells.attach("fp32", "lora", AdapterConfig(targets=("q_proj", "v_proj")))
    assert "is not trained" in failures(model, "lora")


def test_another_rank_is_found_out():
    assert "shape" in failures(cells.attach("fp32", "lora", AdapterConfig(rank=4)), "lora")


def test_a_frozen_adapter_tensor_is_found_out():
    model = cells.attach("fp32", "lora")
    layer = next(iter(lora_layers(model)))[1]
    layer.lora_A[ADAPTER].weight.requires_grad_(False)
    assert "q_proj.lora_A.default.weight is not trained" in failures(model, "lora")


def test_a_thawed_base_tensor_is_found_out():
    model = cells.attach("fp32", "lora")
    model.get_base_model().model.norm.weight.requires_grad_(True)
    assert "model.norm.weight is trained" in failures(model, "lora")


def test_a_changed_base_is_found_out():
    model = cells.attach("fp32", "lora")
    with torch.no_grad():
        next(iter(lora_layers(model)))[1].get_base_layer().weight[0, 0] += 1e-6
    assert "base changed" in failures(model, "lora")


def test_a_changed_four_bit_base_is_found_out():
    model = cells.attach("nf4", "lora")
    next(iter(lora_layers(model)))[1].get_base_layer().weight.data[0, 0] ^= 1
    assert "base changed" in failures(model, "lora")


def test_sixteen_bit_adapters_are_found_out():
    model = cells.attach("fp32", "lora")
    for p in cells.trainable(model).values():
        p.data = p.data.bfloat16()
    assert "bfloat16" in failures(model, "lora")


def test_plain_dora_in_place_of_the_cheap_one_is_found_out():
    model = cells.attach("fp32", "dora")
    next(iter(lora_layers(model)))[1].lora_variant.clear()
    assert "adapter layers" in failures(model, "dora")


def test_an_optimizer_that_misses_or_adds_tensors_is_found_out():
    model = cells.attach("fp32", "lora")
    some = list(cells.trainable(model).values())
    assert "leaves out" in failures(model, "lora", optimizer=torch.optim.SGD(some[1:], lr=1.0))
    extra = [*some, model.get_base_model().model.norm.weight]
    assert "frozen" in failures(model, "lora", optimizer=torch.optim.SGD(extra, lr=1.0))


def test_the_share_of_tensors_with_a_gradient_is_recorded():
    model = cells.attach("fp32", "lora")
    assert methods.identity(model, "lora", DEFAULT).with_gradient is None
    cells.toy_loss(model.train()).backward()
    assert methods.identity(model, "lora", DEFAULT).with_gradient == 0.5  # B is zero at first, so A has none


def test_a_budget_above_its_target_is_found_out():
    asked = AdapterConfig(rank=4, alpha=8)
    model = cells.attach("fp32", "adalora", asked, steps=8)
    model.base_model.rankallocator.step = 8
    assert "ranks in use" in failures(model, "adalora", asked)


def test_the_label_and_the_configuration_are_compared():
    model = cells.attach("fp32", "lora")
    assert "labelled rslora" in failures(model, "rslora")
    assert "asked for" in failures(model, "lora", dataclasses.replace(DEFAULT, alpha=1.0))


@pytest.mark.parametrize("name", [n for n in methods.names() if methods.get(n).scale is not None])
def test_the_scale_it_states_is_the_one_in_use(name):
    asked = AdapterConfig(rank=methods.get(name).fixed_rank or 4, alpha=12)
    model = cells.attach("fp32", name, asked)
    stated = methods.identity(model, name, asked).scale
    used = {update.factors[2] if update.factors else None for update in methods.updates(model)} - {None}
    used |= {
        m.scaling[ADAPTER]
        for m in model.modules()
        if isinstance(m, BaseTunerLayer) and name in ("dora", "randlora", "gralora")
    }
    assert len(used) == 1
    assert used.pop() == pytest.approx(stated, rel=1e-5)

"""The cheap norm against float64, and the folded forward against PEFT's."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.integrations import dequantize_module_weight
from torch import nn

from rlvr_lite import methods
from rlvr_lite.config import LINEAR_LAYERS, AdapterConfig
from rlvr_lite.methods._fast_dora import FastMagnitude
from rlvr_lite.methods._lora import ADAPTER, lora_layers
from tests.methods import cells

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

R8 = AdapterConfig(rank=8, alpha=16)


def perturbed(base: str, size: float = 0.05) -> nn.Module:
    """DoRA after a large random update."""
    model = cells.attach(base, "dora", R8)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in cells.trainable(model).values():
            p.add_(size * torch.randn(p.shape, generator=generator))
    return model


def exact_norm(layer) -> torch.Tensor:
    weight = dequantize_module_weight(layer.get_base_layer()).double()
    a, b = layer.lora_A[ADAPTER].weight.double(), layer.lora_B[ADAPTER].weight.double()
    return (weight + layer.scaling[ADAPTER] * b @ a).norm(dim=1)


def norms(layer) -> torch.Tensor:
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return layer.lora_magnitude_vector[ADAPTER].row_norm(layer.get_base_layer(), a, b, layer.scaling[ADAPTER])


@pytest.mark.parametrize(("base", "relative"), [("fp32", 3e-7), ("nf4", 3e-7), ("bf16", 2e-3), ("nf4-bf16", 2e-3)])
def test_the_norm_is_the_dense_one(base, relative):
    for _, layer in lora_layers(perturbed(base)):
        expected = exact_norm(layer)
        assert ((norms(layer) - expected).abs() / expected).max() <= relative


@pytest.mark.parametrize("left", [0.3, 1e-2, 1e-4])
def test_an_update_that_cancels_the_weight_falls_back_to_the_dense_norm(left):
    """At B A = -(1 - left) W the sum of the three terms loses all its digits."""
    model = cells.attach("fp32", "dora", AdapterConfig(rank=32, alpha=32, targets=("k_proj",)))
    _, layer = next(iter(lora_layers(model)))
    weight = layer.get_base_layer().weight
    with torch.no_grad():
        layer.lora_A[ADAPTER].weight.copy_(-(1 - left) * weight)
        layer.lora_B[ADAPTER].weight.copy_(torch.eye(32))
    expected = exact_norm(layer)
    assert ((norms(layer) - expected).abs() / expected).max() <= 1e-5


@pytest.mark.parametrize("base", ["fp32", "nf4"])
def test_logits_and_gradients_are_pefts(base):
    ours = perturbed(base)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(LINEAR_LAYERS), use_dora=True, task_type="CAUSAL_LM")
    theirs = get_peft_model(cells.fresh(base), config)
    theirs.load_state_dict(cells.trainable(ours), strict=False)
    assert torch.allclose(cells.logits(ours), cells.logits(theirs), atol=2e-5)
    for model in (ours, theirs):
        model.train()
        cells.toy_loss(model).backward()
    for n, p in cells.trainable(theirs).items():
        mine = ours.get_parameter(n).grad
        assert (mine - p.grad).abs().max() <= 2e-5 * p.grad.abs().max(), n


def test_the_policy_at_step_0_is_the_base_in_bf16_too():
    assert torch.equal(cells.logits(cells.attach("bf16", "dora", R8)), cells.logits(cells.fresh("bf16")))


def counted(monkeypatch) -> list[int]:
    """A one for every norm that is computed from now on."""
    taken, inner = [], FastMagnitude._taken
    monkeypatch.setattr(FastMagnitude, "_taken", lambda *given: taken.append(1) or inner(*given))
    return taken


@pytest.mark.parametrize("base", ["fp32", "nf4-bf16"])
def test_one_norm_serves_all_passes_between_changes_of_the_weights(base, monkeypatch):
    model = perturbed(base).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        for _ in range(2):
            cells.toy_loss(model).backward()
        return [p.grad.clone() for p in cells.trainable(model).values()]

    taken, layers = counted(monkeypatch), len(list(lora_layers(model)))
    anew = gradients()
    assert len(taken) == 4 * layers  # two passes, each recomputed
    taken.clear()
    with methods.steady(model):
        kept = gradients()
    with methods.steady(model):
        logits = cells.logits(model)
    assert len(taken) == layers
    assert all(map(torch.equal, anew, kept))
    assert torch.equal(logits, cells.logits(model))


def test_a_kept_norm_follows_the_weights(monkeypatch):
    model = perturbed("fp32")
    taken, layers = counted(monkeypatch), len(list(lora_layers(model)))
    with methods.steady(model), torch.no_grad():
        cells.logits(model)
        for p in cells.trainable(model).values():
            p.mul_(1.5)
        cells.logits(model)
        for p in cells.trainable(model).values():
            p.data.mul_(1.5)  # behind autograd's back, as kernels of bitsandbytes do it
        methods.moved(model)
        after = cells.logits(model)
    assert len(taken) == 3 * layers
    assert torch.equal(after, cells.logits(model))

"""What a method computes once while sampling: the same as in training, followed by every update, gone in training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.methods import _memory
from rlvr_lite.methods._attachment import adapter_tensors
from rlvr_lite.methods._kept import Keeping
from tests.methods import cells

KEEPING = ["dora", "pissa", "nora", "lora_xs", "tinylora", "oft", "hra", "hira", "randlora"]


@torch.no_grad()
def look(model: nn.Module) -> Tensor:
    """The policy without the call of ``eval()``, which drops what is kept."""
    return model(cells.PROMPT).logits


def values(model: nn.Module) -> list:
    return [m._kept[1] for m in model.modules() if isinstance(m, Keeping) and m._kept is not None]


def adapted(model: nn.Module) -> int:
    return len(methods.attachment(model).build.layout.linears)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", KEEPING)
def test_it_follows_every_update(name, fused):
    """Fused optimizers change tensors without raising their version, here between two looks at the policy."""
    model = cells.trained("fp32", name).eval()
    optimizer = torch.optim.AdamW(cells.trainable(model).values(), lr=1e-2, fused=fused)
    for _ in range(3):
        loss = cells.toy_loss(model)
        kept = look(model)
        assert torch.equal(look(model), kept)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        moved = look(model)
        model.train().eval()
        assert torch.equal(look(model), moved)
        assert not torch.equal(kept, moved)


@pytest.mark.parametrize("name", KEEPING)
def test_it_follows_a_change_of_any_one_tensor(name):
    model = cells.trained("fp32", name).eval()
    tensors = {n: t for n, t in adapter_tensors(model).items() if ".layers.1.mlp.up_proj." in n or "randlora_B" in n}
    assert tensors
    for n, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        look(model)
        with torch.no_grad():
            tensor.view(-1)[: tensor.numel() // 2].mul_(1.5)
        moved = look(model)
        model.train().eval()
        assert torch.equal(look(model), moved), n


@pytest.mark.parametrize("name", KEEPING)
def test_it_is_not_handed_from_autocast_to_full_precision(name):
    model = cells.trained("fp32", name)
    said = cells.logits(model)
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        look(model)
    assert torch.equal(look(model), said)


@pytest.mark.parametrize("name", KEEPING)
def test_it_is_computed_once_in_a_rollout_and_gone_in_training(name):
    model = cells.trained("fp32", name).eval()
    assert not values(model)
    look(model)
    first = values(model)
    assert len(first) >= adapted(model)
    look(model)
    assert all(a is b for a, b in zip(first, values(model), strict=True))
    model.train()
    assert not values(model)


@pytest.mark.parametrize("base", ["fp32", "nf4", "nf4-bf16"])
@pytest.mark.parametrize("name", KEEPING)
def test_sampling_and_training_see_one_policy(name, base):
    model = cells.trained(base, name)
    said = cells.logits(model)
    trained = model.train()(cells.PROMPT).logits.float().detach()
    effect = (said - cells.logits(cells.fresh(base))).abs().max().item()
    rounding = 2e-5 if cells.BASES[base][1] == torch.float32 else 0.1
    assert effect > 4 * rounding or base == "nf4-bf16"
    assert (trained - said).abs().max().item() <= rounding


def test_loading_a_state_drops_it():
    for name in KEEPING:
        model, other = cells.trained("fp32", name), cells.attach("fp32", name)
        said = cells.logits(model)
        cells.logits(other)
        methods.load_trainable_state(other, methods.trainable_state(model))
        assert torch.equal(look(other), said), name


@pytest.mark.parametrize("name", ["hira", "randlora"])
def test_a_model_too_large_to_keep_full_updates_builds_them_as_it_goes(name, monkeypatch):
    kept = cells.logits(cells.trained("fp32", name))
    monkeypatch.setattr(_memory, "_KEPT_AT_MOST", 4 * 1000)
    model = cells.trained("fp32", name)
    assert torch.allclose(cells.logits(model), kept, atol=1e-5)
    assert not values(model)

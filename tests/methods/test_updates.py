"""The updates given to the spectral analysis are what the methods really do to the base."""

import copy

import pytest
import torch

from rlvr_lite import methods
from rlvr_lite.analysis.spectrum import compare_updates, directions
from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods import Layout, updates
from rlvr_lite.methods._starts import weight_of as dequantised
from tests.methods.cells import fresh
from tests.models import move, random_qwen2

LOW_RANK = {"lora", "rank1", "rslora", "lora_plus", "lora_fa", "pissa", "milora", "rlpo", "rlmo", "vera", "adalora"}
LOW_RANK |= {"random_directions"}
TOKENS = torch.arange(24).reshape(2, 12) + 5


def attached(name, size=0.03, base=None):
    """A method on a small base, its trainable tensors moved at random; and the untouched base."""
    base = random_qwen2() if base is None else base
    options = {"oft": AdapterConfig(options={"block_size": 16})}
    model = methods.attach(copy.deepcopy(base), name, options.get(name, AdapterConfig()), total_steps=100, seed=0)
    move(model, size)
    return model.eval(), base


def weight_of(base, update):
    """The parameter of the base that an update belongs to."""
    return base.get_parameter(update.name if update.name.endswith(".bias") else f"{update.name}.weight")


@torch.no_grad()
def logits(model):
    return model(input_ids=TOKENS).logits.double()


@torch.no_grad()
def applied(base, found):
    """The base with every update added to its weights."""
    result = copy.deepcopy(base).double()
    for update in found:
        weight_of(result, update).add_(update.delta())
    return result


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "full"])
def test_base_plus_updates_is_the_trained_policy(name):
    model, base = attached(name)
    found = list(updates(model))
    expected, plain = logits(model), logits(base)
    effect = float((expected - plain).abs().max())
    assert effect > 1e-3  # there is something to reproduce
    torch.testing.assert_close(logits(applied(base, found)), expected, rtol=0, atol=max(2e-5, 1e-3 * effect))
    for update in found:
        assert torch.equal(update.weight(), weight_of(base, update))
    if name in LOW_RANK:
        assert all(update.factors is not None for update in found)


def test_asking_for_updates_leaves_the_model_alone():
    for name in ("dora", "oft", "hra", "pissa"):
        model, _ = attached(name)
        before, trainable = logits(model), {n for n, p in model.named_parameters() if p.requires_grad}
        state = {n: t.clone() for n, t in model.state_dict().items()}
        for update in updates(model):
            update.delta()
        assert torch.equal(logits(model), before)
        assert {n for n, p in model.named_parameters() if p.requires_grad} == trainable
        assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())


def test_pissa_before_training_has_no_update():
    model, _ = attached("pissa", size=0.0)
    assert all(directions(update).rank == 0 for update in updates(model))


@pytest.mark.parametrize("name", [n for n in methods.names() if "nf4" not in methods.get(n).unsupported])
def test_on_a_4_bit_base_the_update_is_to_its_dequantised_weights(name):
    model, _ = attached(name, base=fresh("nf4"))
    found, plain = list(updates(model)), random_qwen2()
    with torch.no_grad():
        for layer in Layout.of_model(plain).linears:  # every linear is dequantised, adapted or not
            plain.get_parameter(f"{layer}.weight").copy_(dequantised(fresh("nf4").get_submodule(layer)))
    torch.testing.assert_close(logits(applied(plain, found)), logits(model), rtol=0, atol=5e-4)


def test_full_needs_the_base_and_gives_matrices_and_norms():
    model, base = attached("full", size=1e-3)
    with pytest.raises(UserError, match="pass it as base"):
        list(updates(model))
    found = list(updates(model, base))
    assert {update.name for update in found} >= {"model.layers.0.self_attn.q_proj", "model.norm"}
    run = compare_updates({"full": found}).runs[0]
    assert len(run.matrices) == 14
    assert len(run.vectors) == 5
    now = (
        model.get_submodule("model.layers.1.mlp.up_proj").weight
        - base.get_submodule("model.layers.1.mlp.up_proj").weight
    )
    (update,) = [u for u in found if u.name == "model.layers.1.mlp.up_proj"]
    torch.testing.assert_close(update.delta().float(), now, rtol=0, atol=1e-7)
    with pytest.raises(UserError, match="another base"):
        list(updates(model, random_qwen2(hidden=32)))


def test_ln_tuning_gives_vectors_and_the_analysis_says_what_it_measured():
    model, _ = attached("ln_tuning")
    spectrum = compare_updates({"ln_tuning": updates(model)})
    assert "no matrix" in spectrum.words()[0]


def test_a_model_without_a_method():
    with pytest.raises(UserError):
        list(updates(random_qwen2()))


def test_one_base_serves_every_run_of_a_comparison():
    """Updates outlive their method: attach, list, detach, and the next method takes the same base."""
    base, runs, alone = random_qwen2(), {}, {}
    for name in ("lora", "pissa", "dora"):
        model = methods.attach(base, name, AdapterConfig(), total_steps=9, seed=0)
        move(model)
        runs[name] = list(updates(model))
        alone[name] = [update.delta() for update in runs[name]]
        base = methods.detach(model)
    for name, found in runs.items():
        assert all(torch.equal(update.delta(), delta) for update, delta in zip(found, alone[name], strict=True))
    spectrum = compare_updates(runs)
    assert [len(run.matrices) for run in spectrum.runs] == [14, 14, 14]
    assert len(spectrum.overlaps) == 3

"""What every method must keep on every base."""

from __future__ import annotations

import copy
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from rlvr_lite import methods
from rlvr_lite.errors import UserError
from rlvr_lite.methods._attachment import adapter_tensors
from tests.methods import cells
from tests.methods.cells import BASES, DEFAULT

# Of plain PEFT, which these tests load with.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
]

# PEFT 0.21 itself cannot run these: BOFT has one factor where no GPU compiler is, DeLoRA takes norms of packed weights,
# HRA multiplies them, GraLoRA adds to what a 4-bit layer returns, the others hand fp32 on to a bf16 layer.
_PEFT_CANNOT = {
    *(("boft", base) for base in BASES),
    ("delora", "nf4"),
    ("delora", "nf4-bf16"),
    ("hra", "nf4"),
    ("hra", "nf4-bf16"),
    ("ia3", "nf4-bf16"),
    ("randlora", "nf4-bf16"),
    ("road", "nf4-bf16"),
}
if version("peft") < "0.21":  # it forgets the configuration of an OFT layer
    _PEFT_CANNOT |= {("oft", base) for base in BASES if "nf4" in base}

# These start from the base alone; every other draws something.
_NOT_RANDOM = {
    *[
        "full",
        "ia3",
        "ln_tuning",
        "miss",
        "oft",
        "boft",
        "c3a",
        "road",
        "lora_xs",
        "mica",
        "olora",
        "rlpo",
        "rlmo",
        "geora",
    ],
    *["pissa", "pissa:residual", "milora", "milora:residual"],
}


@pytest.mark.parametrize(("name", "base"), cells.cells())
def test_trains_exactly_what_its_name_says(name, base, record_property):
    untouched = cells.logits(cells.fresh(base))
    model = cells.attach(base, name)
    start = cells.logits(model)
    off = (start - untouched).abs().max().item()
    record_property("difference_at_step_0", off)
    assert off <= (2e-5 if BASES[base][1] == torch.float32 else 0.1)

    before = cells.toy_loss(model.eval()).item()
    optimizer = methods.optimizer(model, name, methods.learning_rate(name, "tiny").value)
    frozen = {n: p.clone() for n, p in adapter_tensors(model).items() if not p.requires_grad} if name != "full" else {}
    moved = cells.train(model, name, optimizer, range(1, 4))
    assert set().union(*moved) == set(cells.trainable(model))
    assert cells.toy_loss(model.eval()).item() < before
    cells.train(model, name, optimizer, range(4, 21))

    proof = methods.identity(model, name, DEFAULT, optimizer=optimizer)
    assert proof.failures == []
    assert proof.trainable_parameters == proof.expected_parameters
    assert not torch.equal(cells.logits(model), start)
    assert all(torch.equal(adapter_tensors(model)[n], p) for n, p in frozen.items())
    if name == "full":
        return
    with methods.disabled(model):
        assert torch.equal(cells.logits(model), untouched)
    with model.disable_adapter():
        assert torch.equal(cells.logits(model), untouched)
    assert methods.identity(model, name, DEFAULT).failures == []
    assert torch.equal(cells.logits(methods.detach(model)), untouched)


@pytest.mark.parametrize(("name", "base"), cells.cells())
def test_a_saved_adapter_says_the_same_on_a_fresh_base(name, base, tmp_path):
    model = cells.trained(base, name)
    said = cells.logits(model)
    methods.save(model, tmp_path / "adapter", facts={"task": "toy"})
    assert torch.equal(cells.logits(model), said)
    assert {p.suffix for p in (tmp_path / "adapter").rglob("*")} <= {".safetensors", ".json"}
    tolerance = 1e-5 if base == "fp32" else 1e-4
    loaded = methods.load(cells.fresh(base), tmp_path / "adapter")
    assert (cells.logits(loaded) - said).abs().max() <= tolerance
    assert not cells.trainable(loaded)
    if name != "full":
        with methods.disabled(loaded):
            assert torch.equal(cells.logits(loaded), cells.logits(cells.fresh(base)))
    if name == "full" or (name, base) in _PEFT_CANNOT:
        return
    plain = cells.keep_unpacked(PeftModel.from_pretrained(cells.fresh(base), tmp_path / "adapter"))
    # In 16 bits PEFT rounds where these methods do not: norms and DoRA's magnitude in bf16, sums in another order.
    assert (cells.logits(plain) - said).abs().max() <= (2e-5 if BASES[base][1] == torch.float32 else 0.1)


@pytest.mark.parametrize(("name", "base"), cells.cells())
def test_training_goes_on_bit_for_bit_from_its_state(name, base):
    rate = methods.learning_rate(name, "tiny").value
    whole = cells.attach(base, name, steps=8)
    optimizer = methods.optimizer(whole, name, rate)
    cells.train(whole, name, optimizer, range(1, 5))
    kept, moments = methods.trainable_state(whole), copy.deepcopy(optimizer.state_dict())
    cells.train(whole, name, optimizer, range(5, 9))

    resumed = cells.attach(base, name, steps=8, seed=99)
    methods.load_trainable_state(resumed, kept)
    optimizer = methods.optimizer(resumed, name, rate)
    optimizer.load_state_dict(moments)
    cells.train(resumed, name, optimizer, range(5, 9))
    ends = methods.trainable_state(whole), methods.trainable_state(resumed)
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])
    assert torch.equal(cells.logits(whole), cells.logits(resumed))


@pytest.mark.parametrize(("name", "base"), cells.cells())
def test_recomputed_activations_give_the_same_gradients(name, base):
    model = cells.trained(base, name)
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            inner = model if name == "full" else model.get_base_model()
            inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        model.zero_grad()
        cells.toy_loss(model).backward()
        grads.append({n: p.grad.clone() for n, p in cells.trainable(model).items()})
    for n, plain in grads[0].items():
        assert torch.allclose(plain, grads[1][n], rtol=1e-4, atol=1e-6 * plain.abs().max().item() + 1e-12), n


@pytest.mark.parametrize("name", methods.names())
def test_cached_generation_is_plain_generation(name):
    model = cells.trained("fp32", name).eval()
    options = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, "pad_token_id": 0}
    prompt = cells.PROMPT[:, :6]
    mask = torch.ones_like(prompt)
    with torch.no_grad():
        cached = model.generate(input_ids=prompt, attention_mask=mask, use_cache=True, **options)
        plain = model.generate(input_ids=prompt, attention_mask=mask, use_cache=False, **options)
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("name", [n for n in methods.names() if methods.get(n).mergeable])
def test_merged_on_a_dequantised_base_is_the_adapted_model(name):
    base = cells.fresh("nf4").dequantize()
    untouched = cells.logits(base)
    model = cells.attach(base, name)
    optimizer = methods.optimizer(model, name, methods.learning_rate(name, "tiny").value)
    cells.train(model, name, optimizer, range(1, 4))
    said = cells.logits(model)
    effect = (said - untouched).abs().mean()
    merged = methods.merge(model)
    assert not isinstance(merged, PeftModel)
    assert (cells.logits(merged) - said).abs().mean() <= 1e-4 * effect


@pytest.mark.parametrize("name", [n for n in methods.names() if "nf4" not in methods.get(n).unsupported])
def test_merging_into_four_bits_is_refused(name):
    with pytest.raises(UserError, match="4-bit"):
        methods.merge(cells.attach("nf4", name))


@pytest.mark.parametrize(("name", "base"), cells.cells(unsupported=True))
def test_a_base_it_cannot_sit_on_is_refused_before_anything_is_loaded(name, base):
    with pytest.raises(UserError, match=name):
        methods.check_precision(name, BASES[base][0])
    untouched = cells.fresh(base)
    with pytest.raises(UserError, match=name):
        methods.attach(untouched, name, DEFAULT, total_steps=1, seed=0)
    assert not hasattr(untouched, "peft_config")


@pytest.mark.parametrize("name", methods.names())
def test_the_start_is_decided_by_the_seed_alone(name):
    torch.manual_seed(5)
    first = methods.trainable_state(cells.attach("fp32", name, seed=3))
    drawn = torch.rand(2)
    torch.manual_seed(5)
    torch.rand(1000)
    again = methods.trainable_state(cells.attach("fp32", name, seed=3))
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(2))
    assert all(torch.equal(first[n], again[n]) for n in first)
    other = methods.trainable_state(cells.attach("fp32", name, seed=4))
    assert all(torch.equal(first[n], other[n]) for n in first) == (name in _NOT_RANDOM)


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "full"])
def test_loaded_for_training_it_trains_on(name, tmp_path):
    model = cells.trained("fp32", name)
    methods.save(model, tmp_path / "adapter")
    again = methods.load(cells.fresh("fp32"), tmp_path / "adapter", trainable=True)
    assert methods.identity(again, name, DEFAULT).failures == []
    for n, p in cells.trainable(model).items():
        assert torch.allclose(again.get_parameter(n), p, rtol=1e-6, atol=1e-7), n
    before = cells.toy_loss(again).item()
    cells.train(again, name, methods.optimizer(again, name, 1e-3), range(4, 7))
    assert cells.toy_loss(again.eval()).item() < before


@pytest.mark.parametrize("name", methods.names())
def test_a_copy_says_the_same_and_trains_apart(name):
    model = cells.trained("fp32", name)
    said = cells.logits(model)
    double = copy.deepcopy(model)
    assert torch.equal(cells.logits(double), said)
    assert len(cells.trainable(double)) == len(cells.trainable(model))
    cells.train(double, name, methods.optimizer(double, name, 1e-2), range(4, 6))
    assert not torch.equal(cells.logits(double), said)
    assert torch.equal(cells.logits(model), said)


@pytest.mark.parametrize("name", methods.names())
def test_its_file_holds_no_more_than_the_adapter(name, tmp_path):
    methods.save(cells.attach("fp32", name), tmp_path / "adapter")
    weights = next(p for p in Path(tmp_path / "adapter").glob("*model.safetensors"))
    names = set(load_file(weights))
    assert names
    if name != "full":
        assert not any("base_layer" in n or n.endswith("_proj.weight") for n in names)

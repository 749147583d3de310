"""What the Unsloth route asks of Unsloth for each method, on a fake that has its habits and ignores what it would ignore."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from rlvr_lite import bases, grpo, methods
from rlvr_lite.bases import EMBEDDED, _backend, _unsloth_host, check_decode
from rlvr_lite.bases._decode_check import decode_difference
from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods import list_hosting, on_unsloth
from tests.models import random_qwen2
from tests.unsloth.fake import install
from tests.unsloth.parity import PAPER, save
from tests.unsloth.probe import adapter_of, measure, shake

FUSED = {"lora", "rank1", "rslora", "lora_plus", "lora_fa", "pissa", "milora"}


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    monkeypatch.setattr(_backend, "_claimed", None)
    monkeypatch.setattr(_backend, "_began", lambda package: 0.0)
    return install(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save(random_qwen2(vocab=128), tmp_path_factory.mktemp("unsloth") / "qwen2"))


@pytest.fixture
def stock(folder):
    return lambda: AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").requires_grad_(False).eval()


def attach(model, method):
    return methods.attach(model, method, adapter_of(method), total_steps=10, seed=0)


def test_nothing_of_the_load_is_left_to_a_default(calls, folder):
    base = bases.load(folder, "fp32", backend="unsloth")
    assert calls == ["from_pretrained"]
    asked = calls.loaded
    assert asked["model_name"] == folder
    assert (asked["dtype"], asked["max_seq_length"]) == (torch.float32, 512)
    assert asked["use_safetensors"]
    assert asked["local_files_only"]
    assert asked["use_exact_model_name"]
    for off in ("load_in_4bit", "load_in_8bit", "trust_remote_code", "fast_inference", "fix_tokenizer"):
        assert asked[off] is False
    assert asked["use_gradient_checkpointing"] is False
    assert (base.backend, base.precision) == ("unsloth", "fp32")
    assert base.tokenizer.padding_side == "left"
    assert not any(p.requires_grad for p in base.model.parameters())


def test_the_weights_are_those_of_the_folder(calls, folder, stock):
    base = bases.load(folder, "fp32", backend="unsloth")
    expected = stock().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in base.model.state_dict().items())
    assert methods.base_hash(base.model) == methods.base_hash(stock())


@pytest.mark.parametrize("method", PAPER)
def test_each_method_of_the_paper_decodes_and_trains_as_on_transformers(calls, folder, stock, method, monkeypatch):
    monkeypatch.setattr(_unsloth_host, "_narrow", lambda weight: True)
    hosted = attach(bases.load(folder, "fp32", backend="unsloth").model, method)
    plain = attach(stock(), method)
    for model in (hosted, plain):
        shake(model)
    found, expected = measure(hosted), measure(plain)
    assert (found["logits"] - expected["logits"]).abs().max() < 1e-4
    assert found["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        assert torch.allclose(found["gradients"][name], gradient, rtol=1e-3, atol=1e-5), name
    assert torch.equal(found["greedy"]["free"], expected["greedy"]["free"])
    assert torch.equal(found["greedy"]["ended"], expected["greedy"]["ended"])
    blocks = (hosted.get_base_model() if method != "full" else hosted).model.layers
    fused = {vars(b.self_attn)["apply_o"] is not _original("o") for b in blocks} | {
        "forward" in vars(b.mlp) for b in blocks
    }
    assert fused == {method in FUSED}
    assert all(vars(b.self_attn)["apply_qkv"] is _original("qkv") for b in blocks)  # Qwen2 has biases there
    assert ("mlp" in calls) == (method in FUSED)


def _original(which):
    return getattr(sys.modules["unsloth.models.llama"], f"original_apply_{which}")


@pytest.mark.parametrize("method", [n for n in methods.names() if n not in PAPER])
def test_every_other_method_passes_the_check_on_attaching(calls, folder, method, monkeypatch):
    monkeypatch.setattr(_unsloth_host, "_narrow", lambda weight: True)
    attached = attach(bases.load(folder, "fp32", backend="unsloth").model, method)
    shake(attached)
    assert decode_difference(attached) < 1e-4


def test_a_base_without_biases_is_fused_in_attention_too(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(_unsloth_host, "_narrow", lambda weight: True)
    model = random_qwen2(vocab=128)
    base = bases.load(str(save(model, tmp_path / "model")), "fp32", backend="unsloth")
    for block in base.model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(block.self_attn, name).bias = None
    attached = attach(base.model, "lora")
    assert all(vars(b.self_attn)["apply_qkv"] is not _original("qkv") for b in attached.get_base_model().model.layers)


def test_a_base_in_32_bits_is_not_fused(calls, folder):
    attached = attach(bases.load(folder, "fp32", backend="unsloth").model, "lora")
    assert not any("forward" in vars(b.mlp) for b in attached.get_base_model().model.layers)


def test_the_next_method_on_the_same_base_finds_no_fused_functions(calls, folder, monkeypatch):
    monkeypatch.setattr(_unsloth_host, "_narrow", lambda weight: True)
    base = bases.load(folder, "fp32", backend="unsloth")
    again = attach(methods.detach(attach(base.model, "lora")), "miss")
    assert not any("forward" in vars(b.mlp) for b in again.get_base_model().model.layers)
    assert decode_difference(again) < 1e-4


def test_checking_leaves_the_adapter_and_the_random_state_alone(calls, folder, stock):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    hosted = attach(bases.load(folder, "fp32", backend="unsloth").model, "pissa")
    assert torch.equal(torch.get_rng_state(), state)
    expected = dict(attach(stock(), "pissa").named_parameters())
    assert all(torch.equal(p, expected[n]) for n, p in hosted.named_parameters())
    assert not hosted.training


@pytest.mark.parametrize(
    ("method", "guard"), [("pissa:residual", "_has_non_lora_adapter"), ("dora", "_has_active_dora_adapter")]
)
def test_without_its_guard_an_adapter_is_caught(calls, folder, method, guard, monkeypatch):
    base = bases.load(folder, "fp32", backend="unsloth")
    for name in {guard, "_has_non_lora_adapter"}:
        monkeypatch.setattr(sys.modules["unsloth.kernels.utils"], name, lambda proj: False)
    with pytest.raises(UserError, match="take backend transformers"):
        attach(base.model, method)


class _Hook(nn.Module):
    """A trained scale put on by a forward hook, which a decode path that reads weights never sees."""

    def __init__(self, model):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.model = model
        self.get_base_model = lambda: model
        for block in model.model.layers:
            block.self_attn.v_proj.register_forward_hook(lambda m, i, out: out * self.scale)


def test_an_adapter_that_decoding_ignores_is_named(calls, folder):
    base = bases.load(folder, "fp32", backend="unsloth")
    wrapped = _Hook(base.model)
    step = base.model.model.forward

    def blind(**given):  # decode without hooks
        hooks = [block.self_attn.v_proj._forward_hooks for block in base.model.model.layers]
        kept = [dict(h) for h in hooks] if given.get("use_cache") else None
        for h in hooks if kept else ():
            h.clear()
        try:
            return step(**given)
        finally:
            for h, old in zip(hooks, kept or (), strict=False):
                h.update(old)

    vars(base.model.model)["forward"] = blind
    with pytest.raises(UserError, match=r"ignores the adapter|differ from a full forward pass"):
        check_decode(wrapped)


def test_a_dropped_padding_mask_is_named(calls, folder):
    base = bases.load(folder, "fp32", backend="unsloth")
    base.model.model._unsloth_keep_padding_mask = False
    with pytest.raises(UserError, match="trained differ from a full forward pass"):
        attach(base.model, "lora")


def test_too_long_an_input_is_an_error_not_a_cut(calls, folder):
    base = bases.load(folder, "fp32", backend="unsloth")
    ids = torch.ones(1, 513, dtype=torch.long)
    with pytest.raises(ValueError, match="513 tokens are more than the model's 512"):
        base.model.model(input_ids=ids)


def test_packing_says_why_not(calls, folder):
    model = attach(bases.load(folder, "fp32", backend="unsloth").model, "lora")
    assert list(measure(model)["packed"]) == ["packing fails on this model (Unsloth's attention knows no tree masks)"]
    assert grpo.Packer().supports(model) is None


@pytest.mark.parametrize(
    ("method", "precision", "adapter", "says"),
    [
        ("full", "bf16", AdapterConfig(), "kept in fp32"),
        ("full", "nf4", AdapterConfig(), "4-bit weights cannot be trained"),
        ("lora", "bf16", AdapterConfig(targets=("q_proj", "lm_head")), "leave it out of the targets"),
        ("pissa:residual", "nf4", AdapterConfig(), "quantised a second time"),
    ],
)
def test_what_unsloth_would_ignore_or_break_is_refused(method, precision, adapter, says):
    found = on_unsloth(method, precision, adapter)
    assert found.route == "refused"
    assert says in found.reason


def test_a_refusal_is_one_line_and_comes_before_the_base_is_touched(calls, folder):
    base = bases.load(folder, "bf16", backend="unsloth")
    before = [p.clone() for p in base.model.parameters()]
    with pytest.raises(UserError, match="full cannot sit on this bf16 base of Unsloth") as error:
        methods.attach(base.model, "full", AdapterConfig(), total_steps=1, seed=0)
    assert "\n" not in str(error.value)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(before, base.model.parameters(), strict=True))


def test_the_matrix_covers_every_method():
    rows = {row["method"]: row for row in list_hosting()}
    assert set(rows) == set(methods.names())
    assert {name for name in PAPER if rows[name]["nf4"] == "fused"} == FUSED
    assert {name for name in PAPER if rows[name]["nf4"] == "refused"} == {"full"}
    assert rows["full"]["fp32"] == "hosted"


@pytest.mark.parametrize("family", ["gemma2", "mistral", "smollm3"])
def test_families_without_a_fast_path_are_refused(calls, folder, family, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads(Path(other, "config.json").read_text())
    Path(other, "config.json").write_text(json.dumps(config | {"model_type": family}))
    with pytest.raises(UserError, match=f"no fast path for {family} models"):
        bases.load(str(other), backend="unsloth")
    assert not calls


def test_the_embedded_base_has_a_fast_path():
    assert json.loads((EMBEDDED["tiny"] / "config.json").read_text())["model_type"] == "qwen2"

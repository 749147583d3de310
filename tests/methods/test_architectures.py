"""Targets by meaning: the linear layers of any decoder's blocks, and what carries no adapter is counted."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from peft import LoraConfig as _LORA
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as PEFTS
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from rlvr_lite import methods
from rlvr_lite.config import LINEAR_LAYERS, AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods import Layout
from tests.methods import cells
from tests.zoo import ZOO, random_model

_LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": None, "eos_token_id": 1}
_DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
#: The settings of a small model, the layers that ``all-linear`` means there, and the matrices that get no adapter.
BASES: dict[str, tuple[dict[str, Any], set[str], dict[str, int]]] = {
    "llama": (_LLAMA, set(LINEAR_LAYERS), {}),
    "qwen2": (_LLAMA | {"num_key_value_heads": 2}, set(LINEAR_LAYERS), {}),
    "phi3": (_LLAMA | {"pad_token_id": 0}, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}, {}),
    "gpt_neox": (_LLAMA, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}, {}),
    "gpt2": (_GPT2, {"c_attn", "c_proj", "c_fc"}, {}),
    "opt": (
        {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 16},
        {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
        {},
    ),
    "lfm2": (
        _LLAMA | {"num_key_value_heads": 2, "layer_types": ["conv", "conv", "full_attention"]},
        {"in_proj", "out_proj", "w1", "w2", "w3", "q_proj", "k_proj", "v_proj"},
        {"conv.conv": 2},
    ),
    "qwen3_5_text": (
        _LLAMA
        | _DELTA
        | {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        },
        {"in_proj_qkv", "in_proj_z", "out_proj", *LINEAR_LAYERS},
        {"linear_attn.conv1d": 2, "linear_attn.in_proj_a": 2, "linear_attn.in_proj_b": 2},
    ),
    "qwen3_moe": (
        _LLAMA | _EXPERTS | {"num_key_value_heads": 2, "head_dim": 8, "mlp_only_layers": [0]},
        set(LINEAR_LAYERS),
        {"mlp.experts.gate_up_proj": 2, "mlp.experts.down_proj": 2, "mlp.gate": 2},
    ),
    "mixtral": (
        _LLAMA | {"num_key_value_heads": 2, "num_local_experts": 4},
        {"q_proj", "k_proj", "v_proj", "o_proj"},
        {"mlp.experts.gate_up_proj": 3, "mlp.experts.down_proj": 3, "mlp.gate": 3},
    ),
}
IDS = torch.arange(2, 12)[None]


def base(kind: str) -> Any:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](vocab_size=64, initializer_range=0.1, **BASES[kind][0])
    with torch.random.fork_rng():
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def attach(model: Any, name: str, **asked: Any) -> Any:
    return methods.attach(model, name, AdapterConfig(**asked), total_steps=10, seed=0)


def move(model: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("kind", BASES)
def test_all_linear_is_every_linear_layer_of_the_blocks_by_the_names_it_has_there(kind, caplog):
    _, expected, bare = BASES[kind]
    model = base(kind)
    with caplog.at_level(logging.WARNING, "rlvr_lite"):
        attached = attach(model, "lora", rank=4)
    proof = methods.identity(attached, "lora", AdapterConfig(rank=4))
    assert proof.proven, proof.failures
    assert {name.rpartition(".")[2] for name in proof.targets} == expected
    assert proof.without_adapter == bare
    said = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("rlvr_lite"))
    assert all(name in said for name in bare)
    assert bool(bare) == bool(said)
    attached(IDS).logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in attached.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("name", ["lora", "pissa", "dora", "ia3"])
def test_the_base_at_the_start_and_the_adapted_one_merged_and_loaded(name, kind, tmp_path):
    model = base(kind)
    with torch.no_grad():
        before = model(IDS).logits
        size = {} if name == "ia3" else {"rank": 4}
        if kind == "gpt2" and name in ("dora", "ia3"):
            with pytest.raises(UserError, match="transposed"):
                attach(model, name, **size)
            return
        attached = attach(copy.deepcopy(model), name, **size)
        torch.testing.assert_close(attached(IDS).logits, before)
        move(attached)
        after = attached(IDS).logits
        assert (after - before).abs().max() > 1e-3
        with methods.disabled(attached):
            torch.testing.assert_close(attached(IDS).logits, before)
        methods.save(attached, tmp_path / "adapter")
        torch.testing.assert_close(methods.load(copy.deepcopy(model), tmp_path / "adapter")(IDS).logits, after)
        moved = (
            {update.name: (len(update.factors[0]), update.factors[1].shape[1]) for update in methods.updates(attached)}
            if kind == "gpt2"
            else {}
        )
        for full, linear in Layout.of_model(model).linears.items():
            assert not moved or moved[full] == (linear.out, linear.inp)
        torch.testing.assert_close(methods.merge(attached)(IDS).logits, after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt_neox", "opt", "llama", "phi3", "qwen3_moe"])
def test_ia3_scales_the_inputs_of_the_layers_that_peft_calls_feed_forward(kind):
    attached = attach(base(kind), "ia3")
    found = {
        name.rpartition(".")[2] for name, module in attached.named_modules() if getattr(module, "is_feedforward", False)
    }
    known = {"phi3": ["down_proj"], "qwen3_moe": ["down_proj"]}  # PEFT has no entry for these
    assert found == set(known.get(kind) or [name.rpartition(".")[2] for name in PEFTS[kind]])


def test_a_structure_that_is_not_the_methods_is_refused_when_it_is_attached_and_leaves_the_base(monkeypatch):
    model = cells.fresh("fp32")
    before = cells.logits(model)
    monkeypatch.setattr("peft.LoraConfig", lambda **settings: _LORA(**settings | {"target_modules": ["q_proj"]}))
    with pytest.raises(UserError, match="lora does not train on this base"):
        attach(model, "lora", rank=4)
    assert torch.equal(cells.logits(model), before)
    assert not hasattr(model, "peft_config")


def test_a_norm_whose_weight_a_mixer_hands_to_a_fused_kernel_is_not_tuned():
    norms = Layout.of_model(random_model(ZOO["granitemoehybrid"]())).norms
    assert not any(name.endswith("mamba.norm") for name in norms)
    assert "model.norm" in norms


@pytest.mark.parametrize(
    ("kind", "past", "kept"),
    [
        ("mamba", "out_proj", {"in_proj"}),
        ("mamba2", "out_proj", {"in_proj"}),
        ("jamba", "dt_proj", {"out_proj", "down_proj"}),
        ("phimoe", "router", {"q_proj", "o_proj"}),
        ("falcon", "nothing", {"query_key_value", "dense"}),
        ("bloom", "nothing", {"query_key_value", "dense"}),
    ],
)
def test_layers_that_an_adapter_cannot_act_in_are_left_out_and_refused_in_one_line_if_named(kind, past, kept):
    model = random_model(ZOO[kind]())
    layout = Layout.of_model(model)
    names = layout.names(("all-linear",))
    assert past not in names
    assert kept <= {name.rpartition(".")[2] for name in names}
    assert past == "nothing" or any(past in name for name in layout.without_adapter(names))
    with pytest.raises(UserError, match=past) as caught:
        attach(model, "lora", rank=4, targets=(past,))
    assert "\n" not in str(caught.value)


def test_all_linear_can_be_said_and_joined_with_names():
    layout = Layout.of_model(base("phi3"))
    assert layout.names(("all-linear",)) == methods.resolve("lora", AdapterConfig(), "tiny", layout).targets
    assert methods.resolve("lora", AdapterConfig(), "tiny").targets == ("all-linear",)
    assert layout.names(("o_proj",)) == ("o_proj",)
    assert layout.without_adapter(("o_proj",)) == {"self_attn.qkv_proj": 3, "mlp.gate_up_proj": 3, "mlp.down_proj": 3}

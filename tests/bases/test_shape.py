"""Sizes of a base are counted on its own model, whatever the architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers.pytorch_utils import Conv1D

import rlvr_lite
from rlvr_lite.analysis.memory import Shape, weights
from rlvr_lite.bases import blank, config_object, list_bases, shape_of
from tests.zoo import ZOO, random_model

REFUSED = {row["model type"] for row in list_bases().rows if row["status"] == "refused"}

BIG = {
    "qwen3_30b_a3b": ("qwen3_moe", 30.5e9, {
        "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
        "vocab_size": 151936, "intermediate_size": 6144, "tie_word_embeddings": False,
    }),
    "pythia_1b": ("gpt_neox", 1.01e9, {
        "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 8, "tie_word_embeddings": False,
    }),
    "lfm2_1.2b": ("lfm2", 1.17e9, {
        "vocab_size": 65536, "hidden_size": 2048, "intermediate_size": 12288, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8,
        "layer_types": ["full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)],
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name]().model_type not in REFUSED])
def test_every_number_of_a_model_is_counted(name: str) -> None:
    config = ZOO[name]().to_dict()
    shape = shape_of(name, config)
    model = blank(config_object(name, config))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    head = model.get_output_embeddings()
    matrices = [
        m for m in model.modules() if type(m) is torch.nn.Linear or isinstance(m, Conv1D)
    ]  # as bitsandbytes has it
    assert sum(size * count for size, count in shape.matrices) == sum(
        m.weight.numel() for m in matrices if m is not head
    )


@pytest.mark.parametrize(
    "name", ["llama", "qwen2_sliding", "gemma3_text", "lfm2", "qwen3_5", "gpt_neox", "gemma4_text"]
)
@torch.no_grad()
def test_the_cache_is_as_large_as_the_models_own(name: str) -> None:
    shape = shape_of(name, ZOO[name]().to_dict())
    model = random_model(ZOO[name]())
    cache = model(input_ids=torch.arange(5, 35)[None], use_cache=True).past_key_values
    kept, states = 0, 0
    for layer in cache.layers:
        if getattr(layer, "keys", None) is not None:
            kept += layer.keys.numel() + layer.values.numel()
        for held in ("conv_states", "recurrent_states"):
            states += sum(x.numel() for x in (getattr(layer, held, None) or {}).values() if x is not None)
    assert shape.states == states
    assert kept <= shape.cached(30) <= 1.1 * kept  # a window keeps one token less than it sees


def test_a_shape_survives_json() -> None:
    shape = shape_of("lfm2", ZOO["lfm2"]().to_dict())
    assert Shape(**json.loads(json.dumps(vars(shape)))) == shape


@pytest.mark.parametrize("name", BIG)
def test_plans_of_real_sizes_hold_all_weights(name: str, tmp_path: Path) -> None:
    kind, stated, sizes = BIG[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind} | sizes))
    plan = rlvr_lite.plan(str(tmp_path), "ln_tuning", gpu="RTX 4090", precision="bf16")
    held = plan.phases["load"]["weights"] - plan.shape.buffers
    assert held == 2 * plan.shape.parameters == pytest.approx(2 * stated, rel=0.01)
    assert plan.fits is (stated < 8e9)


def test_experts_held_as_one_tensor_stay_in_16_bits() -> None:
    kind, _, sizes = BIG["qwen3_30b_a3b"]
    shape = shape_of("moe", {"model_type": kind} | sizes)
    assert weights(shape, "nf4") > 0.9 * weights(shape, "bf16")

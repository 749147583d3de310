"""What an adapter directory holds, and what is not loaded from one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rlvr_lite import methods
from rlvr_lite.errors import UserError
from rlvr_lite.methods._hash import tensors_hash
from tests.methods import cells
from tests.models import random_qwen2


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "adapter"
    methods.save(cells.trained("fp32", "lora"), directory, facts={"task": "toy", "seed": 3})
    return directory


@pytest.fixture
def adapter(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "adapter")


def refused(directory: Path, word: str, base: str = "fp32") -> None:
    model = cells.fresh(base)
    with pytest.raises(UserError, match=word) as caught:
        methods.load(model, directory)
    assert "\n" not in str(caught.value)
    assert not hasattr(model, "peft_config")


def test_the_description_says_what_it_is(adapter):
    about = json.loads((adapter / "rlvr_lite.json").read_text())
    assert about["method"] == "lora"
    assert about["adapter"]["rank"] == 16
    assert about["facts"] == {"task": "toy", "seed": 3}
    assert about["base"]["hash"] == methods.base_hash(cells.fresh("fp32"))
    assert set(about["versions"]) >= {"rlvr-lite", "peft", "torch"}


def test_saving_again_replaces_the_whole_directory(adapter):
    (adapter / "stray.json").write_text("{}")
    methods.save(cells.trained("fp32", "ia3"), adapter)
    assert not (adapter / "stray.json").exists()
    assert methods.attachment(methods.load(cells.fresh("fp32"), adapter)).method == "ia3"


def test_a_missing_directory_is_named(tmp_path):
    refused(tmp_path / "nowhere", "nowhere")


def test_another_base_is_refused(adapter):
    with pytest.raises(UserError, match="another base"):
        methods.load(random_qwen2(seed=1), adapter)


def test_a_base_of_other_shapes_is_refused(adapter):
    with pytest.raises(UserError, match="another base"):
        methods.load(random_qwen2(intermediate=96), adapter)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_truncated_weight_file_is_refused(adapter, keep):
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    refused(adapter, "adapter_model.safetensors")


@pytest.mark.parametrize("name", ["adapter_model.bin", "training.pt", "deep/er/x.pkl"])
def test_a_pickle_is_refused_wherever_it_lies(adapter, name):
    (adapter / name).parent.mkdir(parents=True, exist_ok=True)
    (adapter / name).write_bytes(b"\x80\x04.")
    refused(adapter, "pickle")


@pytest.mark.parametrize(
    "name", ["rlvr_lite.json", "manifest.json", "adapter_model.safetensors", "adapter_config.json"]
)
def test_a_missing_file_is_named(adapter, name):
    (adapter / name).unlink()
    refused(adapter, name)


def test_a_changed_description_is_refused(adapter):
    about = adapter / "rlvr_lite.json"
    about.write_text(about.read_text().replace('"lora"', '"dora"'))
    refused(adapter, "rlvr_lite.json")


def test_a_method_that_cannot_sit_on_this_precision_is_refused(tmp_path):
    methods.save(cells.trained("fp32", "pissa:residual"), tmp_path / "adapter")
    refused(tmp_path / "adapter", "use pissa", base="nf4")


@pytest.mark.parametrize("base", ["bf16", "nf4", "nf4-bf16"])
def test_an_adapter_moves_between_precisions_of_one_base(adapter, base):
    loaded = methods.load(cells.fresh(base), adapter)
    assert torch.equal(
        methods.trainable_state(loaded)["base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"],
        methods.trainable_state(methods.load(cells.fresh("fp32"), adapter))[
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"
        ],
    )


@pytest.mark.parametrize("name", ["lora", "adalora", "miss"])
def test_switching_it_off_and_on_does_not_thaw_a_loaded_adapter(name, tmp_path):
    methods.save(cells.trained("fp32", name), tmp_path / "adapter")
    loaded = methods.load(cells.fresh("fp32"), tmp_path / "adapter")
    with methods.disabled(loaded):
        pass
    assert not cells.trainable(loaded)


# Hashes


def test_one_checkpoint_has_one_hash_in_every_precision(tmp_path):
    from transformers import AutoModelForCausalLM

    random_qwen2(seed=4).to(torch.bfloat16).save_pretrained(tmp_path)
    hashes = {
        methods.base_hash(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    }
    assert len(hashes) == 1
    assert len({methods.base_hash(cells.fresh(base)) for base in cells.BASES if base != "fp16"}) == 1


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.1.input_layernorm.weight"])
def test_the_hash_sees_embeddings_and_norms(name):
    model = cells.fresh("fp32")
    before = methods.base_hash(model)
    with torch.no_grad():
        model.get_parameter(name)[-1] += 0.5
    assert methods.base_hash(model) != before


@pytest.mark.parametrize("name", ["lora", "ln_tuning", "pissa:residual", "dora"])
def test_training_leaves_the_hash_of_the_base(name):
    before = methods.base_hash(cells.fresh("fp32"))
    assert methods.base_hash(cells.trained("fp32", name)) == before


def test_the_hash_of_tensors_sees_every_bit():
    tensors = {"a": torch.zeros(3), "b": torch.ones(2)}
    seen = {tensors_hash(tensors)}
    for other in (
        {**tensors, "a": torch.tensor([0.0, 0.0, -0.0])},
        {"c": tensors["a"], "b": tensors["b"]},
        {**tensors, "a": torch.zeros(3, 1)},
        {**tensors, "a": torch.zeros(3, dtype=torch.int32)},
    ):
        seen.add(tensors_hash(other))
    assert len(seen) == 5


# Training state


def test_the_state_is_a_copy_in_fp32():
    model = cells.trained("bf16", "pissa")
    state = methods.trainable_state(model)
    assert {t.dtype for t in state.values()} == {torch.float32}
    before = {n: t.clone() for n, t in state.items()}
    with torch.no_grad():
        for p in cells.trainable(model).values():
            p.add_(1)
    assert all(torch.equal(state[n], before[n]) for n in state)


def test_the_state_of_another_method_or_size_is_refused():
    state = methods.trainable_state(cells.attach("fp32", "lora"))
    with pytest.raises(UserError, match="dora"):
        methods.load_trainable_state(cells.attach("fp32", "dora"), state)
    smaller = cells.AdapterConfig(rank=4)
    with pytest.raises(UserError, match="rank"):
        methods.load_trainable_state(cells.attach("fp32", "lora", smaller), state)

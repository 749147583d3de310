"""Adapters that somebody else made: each is scored as what it says it is, or refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, OFTConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file, save_file

from rlvr_lite import bases, methods
from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation._policies import describe_policy, load_policy
from rlvr_lite.records import read_json, write_manifest
from rlvr_lite.runs import RunDirectory, RunRecord, finish
from tests.exports.helpers import made_run

TARGETS = ["q_proj", "v_proj"]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    saved(LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"), tmp_path / "adapter")
    return tmp_path / "adapter"


def saved(config: PeftConfig, adapter: Path) -> torch.nn.Module:
    """An adapter as PEFT saves it, off its start."""
    model = get_peft_model(bases.load("tiny").model, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    model.save_pretrained(adapter)
    configure(adapter, base_model_name_or_path="tiny")
    return model


def configure(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(adapter: Path) -> Path:
    return adapter / "adapter_model.safetensors"


def load(adapter: Path) -> Any:
    return load_policy(describe_policy("tiny", adapter=adapter)).model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7]])).logits


def test_a_whole_one_is_loaded(adapter: Path) -> None:
    plain = logits(bases.load("tiny").model)
    assert not torch.allclose(logits(load(adapter)), plain)


@pytest.mark.parametrize("pattern", [r".*\.(q|v)_proj", r"(([a-z_.0-9]+)+)+!"])
def test_a_regular_expression_is_read_off_the_tensors_and_never_matched(adapter: Path, pattern: str) -> None:
    expected = logits(load(adapter))
    configure(adapter, target_modules=pattern)
    assert torch.equal(logits(load(adapter)), expected)


def test_an_oft_whose_rank_peft_notes_as_0_is_loaded(tmp_path: Path) -> None:
    model = saved(OFTConfig(target_modules=TARGETS, task_type="CAUSAL_LM"), tmp_path / "oft")
    assert read_json(tmp_path / "oft" / "adapter_config.json")["r"] == 0
    assert torch.allclose(logits(load(tmp_path / "oft")), logits(model), atol=1e-5)


def test_the_class_that_peft_notes_is_not_imported(adapter: Path) -> None:
    expected = logits(load(adapter))
    configure(adapter, task_type=None, auto_mapping={"base_model_class": "Evil", "parent_library": "no_such_module"})
    assert torch.equal(logits(load(adapter)), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron"),
        ({"peft_type": "EVIL"}, "EVIL"),
        ({"peft_type": "XLORA"}, "XLORA"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, "PROMPT_TUNING"),
        ({"peft_type": ["LORA"]}, "type"),
        ({"r": 10**30}, "rank"),
        ({"r": 200_000_000}, "rank"),
        ({"r": -1}, "rank"),
        ({"rank_pattern": {"(a+)+$": 4}}, "pattern"),
        ({"rank_pattern": 5}, "mapping"),
        ({"exclude_modules": "(a+)+!"}, "pattern"),
        ({"modules_to_save": ["(([a-z_.0-9]+)+)+!"]}, "pattern"),
        ({"layers_to_transform": [0], "layers_pattern": ["(a+)+!"]}, "pattern"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "not finite"),
        ({"lora_alpha": 0}, "alpha"),
        ({"lora_alpha": -8}, "alpha"),
        ({"r": 0}, "rank"),
        ({"alora_invocation_tokens": [1, 2]}, "alora"),
        ({"r": 10**400}, "rank"),
        ({"r": 8}, "size mismatch"),
        ({"layers_to_transform": [99]}, "does not fit"),
        ({"base_model_name_or_path": "Qwen/Qwen2.5-7B"}, "Qwen2.5-7B"),
        ({"base_model_name_or_path": "/etc/passwd"}, "passwd"),
        ({"layer_replication": [[0, 3]] * 3000}, "layer_replication"),
        ({"corda_config": {"cache_file": "evil.pt"}}, "corda"),
        ({"zzz_evil": 1}, "zzz_evil"),
        ({"target_modules": [1]}, "target_modules"),
        ({"modules_to_save": ["lm_head"]}, "does not fit"),
        ({"target_modules": ["q_proj"]}, "no place"),
        ({"target_modules": [*TARGETS, "k_proj"]}, "missing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_that_is_not_what_it_says(adapter: Path, changes: dict[str, Any], words: str) -> None:
    configure(adapter, **changes)
    with pytest.raises(UserError, match=words):
        load(adapter)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", "[" * 200_000, "null", ""])
def test_a_configuration_that_is_none(adapter: Path, text: str) -> None:
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(UserError):
        load(adapter)


@pytest.mark.parametrize("how", ["no keys", "half", "one more", "of the base", "shapes", "not finite", "none"])
def test_tensors_that_are_not_those_of_the_configuration(adapter: Path, how: str) -> None:
    tensors = load_file(weights(adapter))
    changed = {
        "no keys": {f"foo.{name}": tensor for name, tensor in tensors.items()},
        "half": dict(list(tensors.items())[::2]),
        "one more": tensors | {"base_model.model.extra.weight": torch.zeros(2)},
        "of the base": tensors | {"base_model.model.model.norm.weight": torch.zeros(128)},
        "shapes": {name: torch.zeros(3, 3) for name in tensors},
        "not finite": {name: tensor * float("nan") for name, tensor in tensors.items()},
        "none": {},
    }[how]
    save_file(changed, weights(adapter))
    with pytest.raises(UserError) as caught:
        load(adapter)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [3e38, 1e25, 1e21])
def test_numbers_that_overflow_once_they_are_multiplied(adapter: Path, size: float) -> None:
    tensors = load_file(weights(adapter))
    save_file({name: torch.full_like(tensor, size) for name, tensor in tensors.items()}, weights(adapter))
    with pytest.raises(UserError, match="overflow in"):
        load(adapter)


def test_a_scale_that_overflows(adapter: Path) -> None:
    configure(adapter, lora_alpha=1e300)
    with pytest.raises(UserError, match="overflow in"):
        load(adapter)


def test_an_adapter_of_this_package_without_a_fingerprint(tmp_path: Path) -> None:
    model = methods.attach(bases.load("tiny").model, "lora", AdapterConfig(), total_steps=1, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 3e38
    methods.save(model, tmp_path / "adapter")
    with pytest.raises(UserError, match="overflow in"):
        load(tmp_path / "adapter")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("runs") / "lora").directory


def rehash(run: Path) -> None:
    """The hashes of a run as somebody would make them who changed it."""
    files = RunDirectory(run)
    write_manifest(files.adapter, [path for path in files.adapter.iterdir() if path.name != "manifest.json"])
    finish(files, RunRecord(run).summary)


@pytest.mark.parametrize(
    "changes",
    [{"tokens": [[10**9]]}, {"logits": [[float("nan")] * 16] * 8}, {"logits": "x"}, {"precision": "x"}, {"prompts": [3] * 8}, {"prompts": []}],
    ids=str,
)  # fmt: skip
def test_a_fingerprint_that_is_none_proves_nothing(made: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run = shutil.copytree(made, tmp_path / "run")
    path = run / "adapter" / "rlvr_lite.json"
    stored = read_json(path)
    stored["facts"]["fingerprint"] |= changes
    path.write_text(json.dumps(stored))
    rehash(run)
    with pytest.raises(UserError, match=r"rlvr_lite\.json is damaged|not the trained one"):
        load_policy(describe_policy(run))


@pytest.mark.parametrize(
    "changes",
    [{"base": None}, {"method": ["lora"]}, {"adapter": []}, {"adapter": {"rank": 10**9}}, {"adapter": {"rank": 0}}, {"total_steps": "x"}, {"total_steps": -1}, {"facts": None}],
    ids=str,
)  # fmt: skip
def test_what_is_noted_beside_an_adapter_is_of_other_types(made: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run = shutil.copytree(made, tmp_path / "run")
    path = run / "adapter" / "rlvr_lite.json"
    path.write_text(json.dumps(read_json(path) | changes))
    rehash(run)
    with pytest.raises(UserError):
        load_policy(describe_policy(run))


def test_a_catastrophic_pattern_of_another_method_is_never_matched(adapter: Path) -> None:
    kept = {"base_model_name_or_path": "tiny", "peft_type": "IA3", "target_modules": TARGETS}
    (adapter / "adapter_config.json").write_text(json.dumps(kept | {"feedforward_modules": "(([a-z_.0-9]+)+)+!"}))
    with pytest.raises(UserError, match="pattern"):
        load(adapter)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn])
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_numbers_that_are_no_weights_are_not_cast_to_some(adapter: Path, kind: torch.dtype) -> None:
    tensors = load_file(weights(adapter))
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first].to(kind)}, weights(adapter))
    with pytest.raises(UserError, match=str(kind).removeprefix("torch.")):
        load(adapter)


@pytest.mark.parametrize("data", [b"", (2**62).to_bytes(8, "little") + b"{}", pickle.dumps([1]) + bytes(100)])
def test_a_file_of_weights_that_is_none(adapter: Path, data: bytes) -> None:
    weights(adapter).write_bytes(data)
    with pytest.raises(UserError):
        load(adapter)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_pipe_is_not_waited_for(adapter: Path, name: str) -> None:
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    with pytest.raises(UserError):
        load(adapter)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.BIN", "x.Pkl"])
def test_a_pickle_by_any_spelling(adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(pickle.dumps(1))
    with pytest.raises(UserError, match="pickle"):
        load(adapter)


def test_weights_under_another_name_are_not_taken_for_the_adapter(adapter: Path) -> None:
    weights(adapter).rename(adapter / "other.safetensors")
    with pytest.raises(UserError, match="adapter_model"):
        load(adapter)

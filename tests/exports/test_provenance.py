"""An export proves that it is its run's policy; anything that was changed since is noticed."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file, save_file

import rlvr_lite
from rlvr_lite import bases, exports, records
from rlvr_lite.errors import UserError
from rlvr_lite.runs import finish
from tests.exports.helpers import about, edit, made_run, random_base


@pytest.fixture
def copy(exported, tmp_path):
    def make(method="dora", to="adapter", **options):
        return shutil.copytree(exported(method, to, **options), tmp_path / "copy")

    return make


@pytest.fixture(scope="module")
def tiny():
    return bases.load("tiny").model


def sign_again(folder):
    """What somebody does who changes a file and its hash with it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: records.hash_file(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("to", ["adapter", "lora", "merged"])
def test_an_export_proves_itself_wherever_it_lies(to, copy):
    found = rlvr_lite.verify_export(copy(to=to))
    assert found.proven
    assert found.reason == ""
    assert found.exact == (to == "adapter")
    assert found.distance.greedy > 0.9
    assert "proven" in str(found)


def test_a_gguf_export_proves_itself(exported):
    pytest.importorskip("gguf")
    found = rlvr_lite.verify_export(exported("dora", "gguf", dtype="fp32"))
    assert found.proven
    assert found.exact


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "export.json", "reference.json", "README.md"])
def test_a_file_that_differs_from_its_hash_is_named(name, copy):
    folder = copy()
    with open(folder / name, "ab") as file:
        file.write(b" ")
    found = rlvr_lite.verify_export(folder)
    assert not found.proven
    assert name in found.reason


@pytest.mark.parametrize(
    ("to", "weights"), [("adapter", "adapter_model"), ("lora", "adapter_model"), ("merged", "model")]
)
def test_other_weights_with_fitting_hashes_are_noticed_by_their_answers(to, weights, copy):
    folder = copy(to=to)
    tensors = load_file(folder / f"{weights}.safetensors")
    name = next(n for n in tensors if "lora_B" in n or "q_proj.weight" in n)
    tensors[name] = tensors[name] + 0.01 * torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    save_file(tensors, folder / f"{weights}.safetensors", metadata={"format": "pt"})
    sign_again(folder)
    found = rlvr_lite.verify_export(folder)
    assert not found.proven
    assert "logits differ" in found.reason


def test_weights_that_are_not_numbers_are_not_proven(copy):
    folder = copy(to="merged")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    sign_again(folder)
    assert not rlvr_lite.verify_export(folder).proven


def test_the_base_without_the_adapter_is_not_the_policy(copy):
    folder = copy(to="lora")
    tensors = {name: torch.zeros_like(t) for name, t in load_file(folder / "adapter_model.safetensors").items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    sign_again(folder)
    assert not rlvr_lite.verify_export(folder).proven


def test_another_tokenizer_is_noticed(copy):
    folder = copy(to="merged")
    text = (folder / "tokenizer.json").read_text()
    stored = json.loads(text)
    vocab = stored["model"]["vocab"]
    vocab["3"], vocab["4"] = vocab["4"], vocab["3"]
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    sign_again(folder)
    assert "tokenizer" in rlvr_lite.verify_export(folder).reason


@pytest.mark.parametrize("where", ["nowhere", ""])
def test_what_is_no_export_is_refused(where, tmp_path):
    with pytest.raises(UserError, match=r"nowhere|no export"):
        rlvr_lite.verify_export(tmp_path / where)


@pytest.mark.parametrize("data", ["null", "[]", "{}", '{"form": "lora", "base": null}', '{"form"', ""])
def test_what_an_export_says_of_itself_is_damaged(data, tmp_path):
    (tmp_path / "export.json").write_text(data)
    with pytest.raises(UserError, match=r"export\.json"):
        exports.load_export(tmp_path)


@pytest.mark.parametrize("base", [{}, {"name": "tiny"}, {"name": 5, "revision": None, "hash": "", "precision": "fp32"}])
def test_a_base_that_an_export_does_not_describe_is_damage(base, tmp_path):
    (tmp_path / "export.json").write_text(json.dumps({"form": "lora", "base": base}))
    with pytest.raises(UserError, match=r"export\.json is damaged"):
        exports.load_export(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_modules": r"(([a-z_.0-9]+)+)+!"}, ""),  # which would be matched for ever
        ({"rank_pattern": {"(a+)+$": 4}}, "pattern"),
        ({"exclude_modules": "(a+)+!"}, "pattern"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron"),
        ({"peft_type": "EVIL"}, "EVIL"),
        ({"r": "x"}, "does not fit"),
    ],
)
def test_what_a_stranger_wrote_into_an_export_never_reaches_peft(changes, said, copy):
    folder = copy("lora")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    sign_again(folder)
    if said:
        with pytest.raises(UserError, match=said) as caught:
            rlvr_lite.verify_export(folder)
        assert "\n" not in str(caught.value)
    else:
        assert rlvr_lite.verify_export(folder).proven


@pytest.mark.parametrize("value", [None, [], ["x"], [[]], [{"a": 1}], [[[1.5]]], [[[10**30]]], [[10**6]], [[-1]], "x"])
@pytest.mark.parametrize("name", ["ids", "answers", "tokens", "values", "held"])
def test_a_reference_of_other_types_proves_nothing(name, value, tiny, copy, monkeypatch):
    monkeypatch.setattr("rlvr_lite.exports._provenance.load_export", lambda path: (tiny, None))
    folder = copy("lora")
    stored = json.loads((folder / "reference.json").read_text())
    short = {key: stored[key][:1] for key in ("prompts", "ids", "answers", "tokens", "values", "held")}
    (folder / "reference.json").write_text(json.dumps(short | {name: value}))
    sign_again(folder)
    with suppress(UserError):
        found = rlvr_lite.verify_export(folder)
        assert not found.proven
        assert "\n" not in found.reason


def test_a_pickle_in_an_export_is_refused(copy):
    folder = copy()
    (folder / "extra.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="pickle"):
        rlvr_lite.verify_export(folder)


def test_the_reference_is_of_held_out_problems_as_they_were_asked(exported):
    stored = json.loads((exported("dora", "adapter") / "reference.json").read_text())
    problems = rlvr_lite.tasks.get("chain-sum").problems("test", 20)
    assert stored["prompts"] == [f"<|user|>{problem.problem}<|assistant|>" for problem in problems]
    tokenizer = bases.load("tiny", "fp32").tokenizer
    assert stored["ids"] == [tokenizer(text, add_special_tokens=False)["input_ids"] for text in stored["prompts"]]
    for answer, tokens in zip(stored["answers"], stored["tokens"], strict=True):
        assert [row[0] for row in tokens] == answer  # greedy takes the highest


def test_load_export_gives_what_can_be_evaluated(exported, run_of):
    from tests.exports.test_forms import apart, policy

    model, tokenizer = exports.load_export(exported("dora", "merged", dtype="fp32"))
    assert apart(model, policy(run_of("dora"))) < 1e-4
    assert tokenizer.chat_template


# The base


@pytest.fixture
def on_a_folder(tmp_path):
    base = random_base(tmp_path / "base")
    return base, made_run(tmp_path / "run", "lora", str(base))


def test_a_base_that_is_gone(on_a_folder, tmp_path):
    base, run = on_a_folder
    folder = run.export(progress=False)
    shutil.move(base, tmp_path / "elsewhere")
    with pytest.raises(UserError, match="base of this run cannot be loaded"):
        run.export("merged", progress=False)
    with pytest.raises(UserError, match="base of this run cannot be loaded"):
        rlvr_lite.verify_export(folder)
    assert [path.name for path in (run.directory / "export").iterdir()] == ["adapter"]


@pytest.mark.parametrize("part", ["embed_tokens", "q_proj"])
def test_a_base_that_was_changed(part, on_a_folder):
    """Embeddings are in the base's hash; a changed linear layer shows in the policy's answers."""
    base, run = on_a_folder
    folder = run.export(progress=False)
    tensors = load_file(base / "model.safetensors")
    name = next(n for n in tensors if part in n and n.endswith("weight"))
    tensors[name] = tensors[name] * 1.2
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not the one that was trained on|not the trained one"):
        run.export("merged", progress=False)
    if part == "embed_tokens":
        with pytest.raises(UserError, match="not the one that was trained on"):
            rlvr_lite.verify_export(folder)
    else:
        assert not rlvr_lite.verify_export(folder).proven


def test_a_run_whose_task_came_in_memory_is_exported_on_its_fingerprint(tmp_path):
    run = made_run(tmp_path / "run", "lora")
    edit(run.files.config, task="dataset")
    finish(run.files, run.summary)
    folder = run.export(progress=False)
    assert len(json.loads((folder / "reference.json").read_text())["prompts"]) == 8
    assert about(folder)["measured"]["logits"] == 0

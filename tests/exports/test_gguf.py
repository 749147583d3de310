"""GGUF files: the same model and the same tokens to transformers' reader, and to llama.cpp where it is installed."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("gguf", reason="GGUF files need the extra: pip install 'rlvr-lite[gguf]'")

from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlvr_lite import bases
from rlvr_lite.errors import UserError
from rlvr_lite.exports._gguf_file import _tokenizers_are_read, read_gguf, write_gguf
from rlvr_lite.exports._gguf_tokens import vocabulary
from tests.exports.helpers import about, greedy, made_run
from tests.models import random_qwen2

TOKENS = torch.arange(40).reshape(2, 20) + 8
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.08,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}


def qwen2(tied=True):
    return random_qwen2(vocab=128, tied=tied)


def llama(tied=True, **changes):
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE | {"tie_word_embeddings": tied, "rope_theta": 50_000.0} | changes)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(std=0.05)
    return model


def qwen3(tied=True):
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE | {"head_dim": 128, "tie_word_embeddings": tied})).eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=TOKENS).logits.double()


def tiny_tokenizer():
    return bases.load("tiny", "fp32").tokenizer


def trained_bpe(steps=None) -> PreTrainedTokenizerFast:
    """A byte-level BPE with real merges and a chat token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = steps or pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    from tokenizers.trainers import BpeTrainer

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False)
    made.train_from_iterator(["twelve and 345 is what we said, said he; naïve café"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("make", [qwen2, llama, qwen3], ids=["qwen2", "llama", "qwen3"])
def test_transformers_reads_the_same_model(make, tied, tmp_path):
    model = make(tied)
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", "fp32", "test")
    read, _ = read_gguf(tmp_path / "m.gguf")
    assert type(read) is type(model)
    assert float((logits(read) - logits(model)).abs().max()) < 1e-4
    names = {tensor.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert ("output.weight" in names) == (not tied)


def test_queries_and_keys_of_llama_are_reordered_for_rotation_by_neighbours(tmp_path):
    """Row 2 i of a head is row i of its first half, row 2 i + 1 row i of its second."""
    model = llama()
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", "fp32", "test")
    stored = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    for side, name, heads in (("q", "attn_q", 4), ("k", "attn_k", 2)):
        ours = model.get_parameter(f"model.layers.1.self_attn.{side}_proj.weight").view(heads, 16, 64)
        theirs = stored[f"blk.1.{name}.weight"].view(heads, 16, 64)
        assert torch.equal(theirs[:, 0::2], ours[:, :8])
        assert torch.equal(theirs[:, 1::2], ours[:, 8:])
    assert torch.equal(stored["blk.1.attn_v.weight"], model.get_parameter("model.layers.1.self_attn.v_proj.weight"))


@pytest.mark.parametrize(("dtype", "error"), [("fp16", 2.0**-11), ("bf16", 2.0**-8), ("q8_0", 1 / 127)])
def test_smaller_types_round_and_no_more(dtype, error, tmp_path):
    model = qwen2()
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", dtype, "test")
    read, _ = read_gguf(tmp_path / "m.gguf")
    for name, parameter in model.named_parameters():
        held = read.get_parameter(name)
        if parameter.ndim == 1:
            assert torch.equal(held, parameter)
        else:
            largest = parameter.view(-1, 32).abs().amax(1).repeat_interleave(32).view_as(parameter)
            assert bool(((held - parameter).abs() <= largest * error).all())
    assert (tmp_path / "m.gguf").stat().st_size < 4 * model.num_parameters()


def test_rows_that_blocks_do_not_fill_become_fp16(tmp_path):
    model = random_qwen2(vocab=128, intermediate=100)
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", "q8_0", "test")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"
    assert kinds["blk.0.attn_q.bias"] == "F32"


# Tokenizers


@pytest.mark.skipif(not _tokenizers_are_read(), reason="transformers reads tokenizers from GGUF files since 5.18")
@pytest.mark.parametrize("make", [tiny_tokenizer, trained_bpe], ids=["tiny", "merges"])
def test_the_tokenizer_comes_through(make, tmp_path):
    tokenizer = make()
    write_gguf(random_qwen2(vocab=len(tokenizer)), tokenizer, tmp_path / "m.gguf", "fp16", "test")
    _, read = read_gguf(tmp_path / "m.gguf")
    for text in ("3+4-2=?", "x = 12\n\n\\boxed{345} twelve said", "naïve café", "<|end|>said"):
        if make is trained_bpe or text.isascii():  # the embedded base drops what is not ASCII
            assert (
                read(text, add_special_tokens=False)["input_ids"]
                == tokenizer(text, add_special_tokens=False)["input_ids"]
            )
    assert read.eos_token_id == tokenizer.eos_token_id
    assert read.chat_template == tokenizer.chat_template


def test_a_tokenizer_without_merges_gets_some_that_never_apply():
    tokenizer = tiny_tokenizer()
    found = vocabulary(tokenizer, 128)
    assert found.merges == ["þ ÿ", "ÿ þ"]
    changed = [i for i, token in enumerate(found.tokens) if tokenizer.convert_ids_to_tokens(i) != token]
    assert len(changed) == 4
    assert all("reserved" in tokenizer.convert_ids_to_tokens(i) for i in changed)
    assert b"\xfe" not in "any text: þÿ".encode()


def test_rows_beyond_the_tokenizer_are_unused():
    tokenizer = trained_bpe()
    found = vocabulary(tokenizer, len(tokenizer) + 3)
    assert found.types[-3:] == [5, 5, 5]
    assert found.types[0] == 3  # <|end|>
    assert len(set(found.tokens)) == len(found.tokens)


def test_the_split_before_the_merges_is_named():
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
    assert vocabulary(tiny_tokenizer(), 128).cut == "qwen2"
    assert vocabulary(trained_bpe(), 400).cut == "gpt-2"
    assert vocabulary(trained_bpe(digits), 400).cut == "smollm"
    with pytest.raises(UserError, match="llama_cpp"):
        vocabulary(
            trained_bpe(pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(False)])), 400
        )


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MistralForCausalLM(MistralConfig(**SHAPE)), "mistral"),
        (lambda: llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), "linear"),
        (lambda: llama(hidden_act="gelu"), "gelu"),
    ],
    ids=["mistral", "rope", "activation"],
)
def test_what_would_be_written_wrongly_is_refused(make, word, tmp_path):
    with pytest.raises(UserError, match=rf"{word}.*llama_cpp"):
        write_gguf(make(), tiny_tokenizer(), tmp_path / "m.gguf", "fp16", "test")


# The whole export


def test_the_exported_file_answers_as_the_trained_policy(exported, run_of):
    folder = exported("dora", "gguf")
    facts = about(folder)
    assert facts["tokenizer"] == ("same" if _tokenizers_are_read() else "not read")
    assert facts["measured"]["greedy"] == 1
    assert facts["file"] == "dora-fp16.gguf"
    reference = json.loads((folder / "reference.json").read_text())
    assert len(reference["prompts"]) == 20
    model, _ = read_gguf(folder / facts["file"])
    for ids, answer in list(zip(reference["ids"], reference["answers"], strict=True))[:5]:
        assert greedy(model, ids, len(answer)) == answer


def test_a_gguf_file_is_a_model_to_train_on(exported):
    from rlvr_lite import AdapterConfig, methods
    from tests.exports.test_forms import trains_on

    model, _ = read_gguf(exported("dora", "gguf") / "dora-fp16.gguf")
    trains_on(methods.attach(model, "lora", AdapterConfig(rank=4), total_steps=5, seed=0))


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("q8_0", marks=pytest.mark.slow)])
def test_llama_cpp_gives_the_same_greedy_tokens(dtype, exported):
    """llama.cpp itself, through the wheel of xllamacpp."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp needs: pip install xllamacpp")
    folder = exported("dora", "gguf", dtype=dtype)
    reference = json.loads((folder / "reference.json").read_text())
    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel = str(folder / about(folder)["file"]), 512, 1
    options.cpuparams.n_threads, options.warmup, options.verbosity = 1, False, 0
    server = xllamacpp.Server(options)
    same = total = 0
    for prompt, answer in zip(reference["prompts"], reference["answers"], strict=True):
        wish = {"prompt": prompt, "n_predict": len(answer), "temperature": 0, "n_probs": 1, "logprobs": 1}
        said = server.handle_completions(wish)
        drawn = [token["id"] for token in said["choices"][0]["logprobs"]["content"]]
        same += sum(a == b for a, b in zip(drawn, answer, strict=False))
        total += len(answer)
    assert same / total >= (1.0 if dtype == "fp32" else 0.9)


@pytest.mark.slow
@pytest.mark.smollm2
def test_a_real_model_and_its_tokenizer(smollm2, tmp_path):
    run = made_run(tmp_path / "run", "lora", str(smollm2))
    facts = about(run.export("gguf", tmp_path / "out", progress=False))
    assert facts["tokenizer"] == "same"
    assert facts["measured"]["greedy"] > 0.98
    assert facts["measured"]["relative"] < 1e-2


# llama.cpp's own converter

FAKE = """\
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("model"); parser.add_argument("--outfile"); parser.add_argument("--outtype")
found = parser.parse_args()
assert found.outtype == "f16", found.outtype
config = json.loads((pathlib.Path(found.model) / "config.json").read_text())
assert config["dtype"] == "float32" and (pathlib.Path(found.model) / "tokenizer.json").exists()
{action}
"""
CONVERT = """\
from rlvr_lite import bases
from rlvr_lite.exports._gguf_file import write_gguf
made = bases.load(found.model, "fp32")
write_gguf(made.model, made.tokenizer, pathlib.Path(found.outfile), "fp16", "by the script")
"""


def script(folder: Path, action: str) -> Path:
    folder.mkdir()
    path = folder / "convert_hf_to_gguf.py"
    path.write_text(FAKE.format(action=action))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.mark.slow
def test_the_script_of_llama_cpp_is_used_when_pointed_to(run_of, tmp_path):
    folder = run_of("lora").export(
        "gguf", tmp_path / "out", llama_cpp=script(tmp_path / "cpp", CONVERT), progress=False
    )
    assert about(folder)["measured"]["greedy"] > 0.9  # fp16 turns a tie now and then
    assert {path.suffix for path in folder.iterdir()} == {".gguf", ".json", ".md"}


def test_a_script_that_fails_or_is_not_there(run_of, tmp_path):
    with pytest.raises(UserError, match=r"convert_hf_to_gguf\.py"):
        run_of("lora").export("gguf", tmp_path / "out", llama_cpp=tmp_path, progress=False)
    broken = script(tmp_path / "cpp", "raise SystemExit('no such architecture')")
    with pytest.raises(UserError, match="no such architecture"):
        run_of("lora").export("gguf", tmp_path / "out", llama_cpp=broken, progress=False)
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_without_the_package_the_extra_is_named(run_of, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"rlvr-lite\[gguf\]"):
        run_of("lora").export("gguf", tmp_path / "out", progress=False)

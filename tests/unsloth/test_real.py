"""Unsloth's own code, on a CPU with Triton's interpreter, against transformers: ``pytest -m unsloth_cpu``.

What a card adds is not seen here: compiled kernels, 4-bit decoding, 16-bit rounding, speed, memory.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.models import random_qwen2
from tests.unsloth.parity import PAPER, compare, run, save

pytestmark = [
    pytest.mark.unsloth_cpu,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"),
]

FUSED = {"lora", "rank1", "rslora", "lora_plus", "lora_fa", "pissa", "milora"}
_LAYERS = 2


def both(folder, tmp_path, names):
    return tuple(run(backend, folder, tmp_path / f"{backend}.pt", names) for backend in ("transformers", "unsloth"))


def check(reference, found, *, fused, most=1e-4):
    """fp32 sums in another order differ by 1e-6; an adapter that is ignored anywhere, by more than 0.1."""
    row = compare(reference, found)
    assert row["logits"] < most
    assert row["gradients"] < most
    assert row["greedy"]
    assert row["sampled logprobs"] < most
    assert row["fused"] == fused
    assert all(torch.equal(found["start"][name], value) for name, value in reference["start"].items())


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    """The architecture of the embedded base: biases on q, k and v, a tied head."""
    return save(random_qwen2(vocab=128), tmp_path_factory.mktemp("unsloth") / "qwen2")


@pytest.mark.parametrize("names", [PAPER[0::2], PAPER[1::2]], ids=["even", "odd"])
def test_the_fourteen_methods_of_the_paper(qwen2, tmp_path, names):
    reference, found = both(qwen2, tmp_path, names)
    for name in names:
        check(reference[name], found[name], fused=2 * _LAYERS if name in FUSED else 0)
        if name != "full":
            assert torch.allclose(found[name]["disabled"], reference[name]["disabled"], atol=1e-5)


def test_a_base_in_16_bits(qwen2, tmp_path):
    names = ("lora@fp16", "ln_tuning@fp16")
    reference, found = both(qwen2, tmp_path, names)
    check(reference[names[0]], found[names[0]], fused=2 * _LAYERS, most=0.02)
    check(reference[names[1]], found[names[1]], fused=0, most=0.02)


def small(kind, config, **options):
    torch.manual_seed(0)
    model = kind(
        config(
            vocab_size=128,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=False,
            initializer_range=0.08,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            **options,
        )
    )
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "config", "options"),
    [
        (LlamaForCausalLM, LlamaConfig, {}),
        (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
    ],
    ids=["llama", "qwen3"],
)
def test_the_other_families_fused_in_attention_too(tmp_path, kind, config, options):
    folder = save(small(kind, config, **options), tmp_path / "model")
    reference, found = both(folder, tmp_path, ("lora", "dora+checkpointing"))
    check(reference["lora"], found["lora"], fused=3 * _LAYERS)
    check(reference["dora+checkpointing"], found["dora+checkpointing"], fused=0)
    assert found["dora+checkpointing"]["passes"] == found["lora"]["passes"] + 1  # the backward pass computes it again


@pytest.mark.parametrize("method", ["lora"])
def test_two_steps_of_our_trainer(qwen2, tmp_path, method):
    reference, found = (
        run(backend, qwen2, tmp_path / f"{backend}.pt", (method,), module="tests.unsloth.steps")[method]
        for backend in ("transformers", "unsloth")
    )
    assert found["rewritten"]  # Unsloth had put its trainer into trl, and ours does not stand on it
    assert not reference["rewritten"]
    assert found["failures"] == reference["failures"] == []
    assert len(found["logs"]) == 2
    for ours, theirs in zip(found["logs"], reference["logs"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert found["logs"][-1]["kl"] > 0
    for name, value in reference["after"].items():
        assert not torch.equal(value, reference["before"][name])
        # Adam's first steps are signs of gradients: compare where the sign is not a matter of rounding
        assert (found["after"][name] - value).abs().median() < 1e-5

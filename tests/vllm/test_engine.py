"""vLLM's own code on a CPU, beside the model that is trained: ``tests/vllm/install.sh`` adds it to an environment."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")

import rlvr_lite
from rlvr_lite import bases, methods
from rlvr_lite.config import AdapterConfig, SamplingConfig
from rlvr_lite.grpo import Truncation, completion_logprobs
from rlvr_lite.sampling import ColocatedVLLM, TransformersSampler, row_keys, tokenize

TEMPERED = SamplingConfig(temperature=0.7, top_k=12, max_completion_length=24)
#: Beyond a block of 128 tokens, which the cache of prompts keeps.
PROMPTS = ["1 + 2 = " * 40, "what is 3 * 4? " * 30]


def policy(method: str, precision: str = "fp32") -> tuple[Any, Any]:
    base = bases.load("tiny", precision)
    return methods.attach(base.model, method, AdapterConfig(), total_steps=100, seed=0).eval(), base.tokenizer


def moved(model: Any, seed: int) -> None:
    """Another policy, far enough from the last that none could be taken for it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def engine(model: Any, tokenizer: Any) -> ColocatedVLLM:
    return ColocatedVLLM(model, TransformersSampler(model, tokenizer), tokenizer, longest=512)


def gap(model: Any, tokenizer: Any, sampler: ColocatedVLLM, seed: int) -> float:
    """Largest difference of a token's log-probability between sampler and scorer."""
    with sampler.prepared():
        found = sampler.sample(PROMPTS, 4, TEMPERED, row_keys(seed, rows=8))
    ids, mask = (x.repeat_interleave(4, 0) for x in tokenize(tokenizer, PROMPTS, PROMPTS))
    with torch.no_grad():
        scored, _ = completion_logprobs(
            model, ids, mask, found.ids, found.mask, TEMPERED.temperature, truncation=Truncation(top_k=TEMPERED.top_k)
        )
    assert len(found.texts) == 8
    assert int(found.mask.sum()) > 16
    return float(((scored - found.logprobs) * found.mask).abs().max())


@pytest.mark.parametrize("method", ["lora", "pissa", "tinylora", "dora", "ia3", "oft", "full"])
def test_every_policy_is_the_one_that_is_scored(method: str) -> None:
    model, tokenizer = policy(method)
    sampler = engine(model, tokenizer)
    assert sampler.weights.endswith("LoRA") == (method in ("lora", "pissa", "tinylora"))
    for seed in range(3):
        moved(model, seed)
        assert gap(model, tokenizer, sampler, seed) < 2e-4


def test_greedy_tokens_are_those_of_the_loop() -> None:
    model, tokenizer = policy("lora")
    moved(model, 0)
    greedy = SamplingConfig(temperature=0, max_completion_length=24)
    own, keys = TransformersSampler(model, tokenizer), row_keys(0, rows=2)
    sampler = engine(model, tokenizer)
    with sampler.prepared():
        found = sampler.sample(PROMPTS, 1, greedy, keys)
    expected = own.sample(PROMPTS, 1, greedy, keys)
    assert torch.equal(found.ids * found.mask, expected.ids * expected.mask)
    assert found.texts == expected.texts
    assert found.ended.tolist() == expected.ended.tolist()


def test_a_base_in_four_bits_is_dequantised_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = policy("lora", "nf4")
    sampler = engine(model, tokenizer)
    assert any("dequantised" in record.getMessage() for record in caplog.records)
    moved(model, 0)
    assert gap(model, tokenizer, sampler, 0) < 2e-4


def test_an_engine_that_dies_is_said_once_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = policy("lora")
    sampler = engine(model, tokenizer)

    def die(*_: Any, **__: Any) -> None:
        raise RuntimeError("engine core died\nat line 3")

    sampler._llm.generate = die
    with caplog.at_level(logging.WARNING):
        for seed in range(2):
            moved(model, seed)
            assert gap(model, tokenizer, sampler, seed) < 2e-4
    assert sum("engine core died" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-2), ("dora", 1e-2), ("full", 3e-4)])
def test_a_run_of_a_configuration_samples_its_own_policy(method: str, rate: float, tmp_path: Path) -> None:
    found = rlvr_lite.train(
        method,
        out=tmp_path / "run",
        sampler="vllm",
        precision="fp32",
        steps=3,
        prompts_per_step=4,
        group_size=4,
        learning_rate=rate,
        eval_problems=0,
        progress=False,
    )
    rows = found.metrics()
    assert found.summary["identity"] == "proven"
    assert [row["sampling/vllm"] for row in rows] == [1, 1, 1]
    assert max(row["sampling/sampling_logp_difference/max"] for row in rows) < 2e-4
    assert "vLLM" in json.loads((found.directory / "preflight.json").read_text())["sampled_from"]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    from datasets import Dataset

    from rlvr_lite.training import GRPOConfig, GRPOTrainer

    model, tokenizer = policy("lora")
    rows = Dataset.from_list([{"prompt": f"{a} + {b} = "} for a, b in ((1, 2), (3, 4), (5, 6), (7, 8))])
    args = GRPOConfig(
        str(tmp_path_factory.mktemp("run")),
        max_steps=3,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=16,
        learning_rate=1e-2,
        use_vllm=True,
        vllm_max_model_length=256,
        use_cpu=True,
        bf16=False,  # or the scorer rounds where the engine does not
        report_to="none",
        logging_steps=1,
    )
    trainer = GRPOTrainer(
        model, lambda completions, **_: [float(len(c)) for c in completions], args, rows, processing_class=tokenizer
    )
    before = copy.deepcopy(methods.trainable_state(model))
    trainer.train()
    assert any(not torch.equal(before[k], v) for k, v in methods.trainable_state(model).items())
    return [row for row in trainer.state.log_history if "loss" in row]


def test_a_run_of_trls_arguments_samples_its_own_policy(steps: list[dict[str, Any]]) -> None:
    assert len(steps) == 3
    gaps = [value for row in steps for name, value in row.items() if name.endswith("sampling_logp_difference/max")]
    assert gaps
    assert max(gaps) < 2e-4

"""An engine beside the model, before a stand-in that keeps what it was given; vLLM's own code is run by ``tests/vllm``."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from rlvr_lite import bases, methods, resolve, train
from rlvr_lite.config import AdapterConfig, SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.sampling import ColocatedVLLM, TransformersSampler, _vllm, row_keys
from rlvr_lite.training import GRPOConfig, GRPOTrainer

SHORT = SamplingConfig(max_completion_length=8)


class Engine:
    """Notes every call in turn."""

    last: Engine

    def __init__(self, **options: Any):
        self.options, self.calls, self.loras = options, [], {}
        self.base = load_file(Path(options["model"]) / "model.safetensors")
        self.config = json.loads((Path(options["model"]) / "config.json").read_text())
        self.weights: dict[str, torch.Tensor] = {}
        self.llm_engine = SimpleNamespace(add_lora=self._add, remove_lora=lambda number: self.loras.pop(number))
        Engine.last = self

    def _add(self, request: Any) -> None:
        assert not self.loras
        self.loras[request.number] = load_file(Path(request.path) / "adapter_model.safetensors")
        self.calls.append(f"lora {request.number}")

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.calls.append(name)

    def collective_rpc(self, name: str, kwargs: Any) -> None:
        self.weights = dict(kwargs["weights_iterator"])
        self.calls.append(name)

    def generate(self, asked: Sequence[Any], parameters: Sequence[Any], **options: Any) -> list[Any]:
        self.asked, self.parameters, self.request = asked, parameters, options["lora_request"]
        answer = {
            "token_ids": [5, 7],
            "logprobs": [{5: SimpleNamespace(logprob=-1.0)}, {7: SimpleNamespace(logprob=-2.0)}],
        }
        made = SimpleNamespace(**answer, text="", finish_reason="stop")
        return [SimpleNamespace(outputs=[made]) for _ in asked]


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.LLM, module.SamplingParams = Engine, SimpleNamespace  # type: ignore[attr-defined]
    module.__version__ = "0.32.1+cu130"  # type: ignore[attr-defined]
    request.LoRARequest = lambda name, number, path: SimpleNamespace(name=name, number=number, path=path)  # type: ignore[attr-defined]
    for name, value in (("vllm", module), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, value)


def policy(method: str, precision: str = "fp32", **adapter: Any) -> tuple[Any, Any]:
    base = bases.load("tiny", precision)
    return methods.attach(base.model, method, AdapterConfig(**adapter), total_steps=10, seed=0), base.tokenizer


def sampler_of(model: Any, tokenizer: Any, **options: Any) -> ColocatedVLLM:
    return ColocatedVLLM(model, TransformersSampler(model, tokenizer), tokenizer, **options)


def drawn(sampler: ColocatedVLLM) -> Any:
    with sampler.prepared():
        return sampler.sample(["1+2=", "3+4="], 2, SHORT, row_keys(0, rows=4))


def test_every_policy_is_a_lora_of_a_name_of_its_own() -> None:
    model, tokenizer = policy("lora")
    sampler = sampler_of(model, tokenizer, enable_sleep_mode=True)
    engine, kept = Engine.last, []
    for _ in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(1)
        found = drawn(sampler)
        kept.append(next(iter(engine.loras.values())))
    once = ["wake_up", "lora 1", "reset_prefix_cache", "sleep"]
    assert engine.calls == ["sleep", *once, *(call.replace("1", "2") for call in once)]
    assert engine.request.number == 2
    assert not torch.equal(*(tensors[min(tensors)] for tensors in kept))
    assert engine.options["enable_lora"]
    assert found.ids.tolist() == [[5, 7]] * 4
    assert found.logprobs.tolist() == [[-1.0, -2.0]] * 4
    assert [row["prompt_token_ids"] for row in engine.asked][::2] == [tokenizer(p).input_ids for p in ("1+2=", "3+4=")]
    assert len({p.seed for p in engine.parameters}) == 4


@pytest.mark.parametrize("method", ["dora", "ia3", "ln_tuning"])
def test_other_methods_hand_over_weights_from_the_untouched_base(method: str) -> None:
    model, tokenizer = policy(method)
    sampler, engine = sampler_of(model, tokenizer), Engine.last
    drawn(sampler)
    assert "enable_lora" not in engine.options
    assert set(engine.weights) == set(engine.base)
    for name, value in engine.base.items():  # nothing is trained yet
        torch.testing.assert_close(engine.weights[name], value, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    first = (drawn(sampler), engine.weights)[1]
    second = (drawn(sampler), engine.weights)[1]
    assert all(torch.equal(first[name], second[name]) for name in first)  # never twice
    assert any(not torch.equal(first[name], engine.base[name]) for name in first)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_base_that_is_trained_hands_over_its_weights_with_a_head_of_its_own(precision: str) -> None:
    model, tokenizer = policy("full", precision)
    assert model.config.tie_word_embeddings
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    own = TransformersSampler(model, tokenizer, autocast=lambda: torch.autocast("cpu", kind, precision == "bf16"))
    sampler, engine = ColocatedVLLM(model, own, tokenizer), Engine.last
    assert not engine.config["tie_word_embeddings"]
    assert sampler.precision == precision
    assert sampler.weights == "vLLM's copy of the policy"
    drawn(sampler)
    assert set(engine.weights) == set(engine.base) == set(model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    drawn(sampler)
    for name, value in model.state_dict().items():  # its master weights, in the type of the products
        assert torch.equal(engine.weights[name], value.to(engine.base[name].dtype))


def test_a_base_in_four_bits_is_handed_over_dequantised(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = policy("lora", "nf4")
    sampler = sampler_of(model, tokenizer)
    assert sampler.precision == {"float32": "fp32", "bfloat16": "bf16"}[Engine.last.options["dtype"]]
    assert "dequantised" in sampler.weights
    assert "quantization_config" not in Engine.last.config
    shapes = {name: value.shape for name, value in Engine.last.base.items()}
    assert shapes == {name: value.shape for name, value in bases.load("tiny", "fp32").model.named_parameters()}
    assert sum("dequantised" in record.getMessage() for record in caplog.records) == 1


def test_an_engine_that_dies_is_said_once_and_the_model_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = policy("lora")
    sampler = sampler_of(model, tokenizer)

    def die(*_: Any, **__: Any) -> None:
        raise RuntimeError("engine core died\nat line 3")

    Engine.last.generate = die  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        assert len(drawn(sampler)) == len(drawn(sampler)) == 4
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "engine core died" in line]) == 1
    assert not any("\n" in line for line in said)


def test_a_rank_beyond_vllms_is_merged_and_that_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_vllm, "_RANKS", (1, 8))
    model, tokenizer = policy("lora", rank=9)
    drawn(sampler_of(model, tokenizer))
    assert Engine.last.weights
    assert sum("rank 9" in record.getMessage() for record in caplog.records) == 1


def trainer(folder: Path, **options: Any) -> Any:
    own = {name: options.pop(name) for name in ("sampler",) if name in options}
    model, tokenizer = policy("lora")
    args = GRPOConfig(str(folder), num_generations=2, per_device_train_batch_size=2, use_cpu=True, **options)
    rows = Dataset.from_list([{"prompt": "1+2="}, {"prompt": "3+4="}])
    return GRPOTrainer(
        model, lambda completions, **_: [0.0] * len(completions), args, rows, processing_class=tokenizer, **own
    )


def test_trls_arguments_build_the_engine(tmp_path: Path) -> None:
    made = trainer(
        tmp_path,
        use_vllm=True,
        vllm_max_model_length=99,
        vllm_gpu_memory_utilization=0.4,
        vllm_model_impl="transformers",
    )
    assert isinstance(made.collector.sampler, ColocatedVLLM)
    options = Engine.last.options
    assert (options["max_model_len"], options["gpu_memory_utilization"]) == (99, 0.4)
    assert options["model_impl"] == "transformers"
    assert made.args.use_vllm
    assert not made.samples_itself
    assert trainer(tmp_path, use_vllm=True, vllm_importance_sampling_correction=False).sampler_correction == "none"
    assert isinstance(trainer(tmp_path, sampler="vllm").collector.sampler, ColocatedVLLM)


@pytest.mark.parametrize(
    "options",
    [
        {"use_vllm": True, "vllm_mode": "server"},
        {"use_vllm": True, "vllm_tensor_parallel_size": 2},
        {"use_vllm": True, "vllm_structured_outputs_regex": "a"},
        {"use_vllm": True, "vllm_importance_sampling_mode": "token_mask"},
        {"sampler": "sglang"},
    ],
    ids=str,
)
def test_what_has_no_counterpart_is_refused_in_one_line(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        trainer(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_a_base_that_came_with_an_engine_of_its_own_names_the_way_out(tmp_path: Path) -> None:
    model, tokenizer = policy("lora")
    model.get_base_model().vllm_engine = object()  # as Unsloth's fast_inference leaves it
    args = GRPOConfig(str(tmp_path), num_generations=2, per_device_train_batch_size=2, use_cpu=True, use_vllm=True)
    with pytest.raises(UserError, match="fast_inference=False"):
        GRPOTrainer(model, lambda **_: [], args, Dataset.from_list([{"prompt": "1+2="}]), processing_class=tokenizer)


def test_without_vllm_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="pip install"):
        trainer(tmp_path, use_vllm=True)


def run(out: Path, **options: Any) -> Any:
    small = {"steps": 3, "prompts_per_step": 2, "group_size": 2, "eval_problems": 0, "max_completion_length": 8}
    loose: dict[str, Any] = {
        "sampler_gap_limit": 1e3,
        "sampler_correction": "none",
    }  # the stand-in makes its answers up
    return train("lora", out=out, progress=False, **(small | loose | {"sampler": "vllm"} | options))


def test_a_run_of_a_configuration_says_who_sampled_it(tmp_path: Path) -> None:
    found = run(tmp_path / "run")
    assert Engine.last.options["max_model_len"] < 256  # not all that the base has positions for
    assert found.config.sampler == "vllm"
    assert [row["sampling/vllm"] for row in found.metrics()] == [1, 1, 1]
    assert "vLLM" in json.loads((tmp_path / "run" / "preflight.json").read_text())["sampled_from"]
    with pytest.raises(UserError, match="sampler = 'vllm'"):
        run(tmp_path / "run", sampler="transformers")


def test_a_run_whose_engine_dies_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, calls = Engine.generate, []

    def until(self: Engine, *asked: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:  # the look ahead and a step
            raise RuntimeError("engine core died")
        return alive(self, *asked, **options)

    monkeypatch.setattr(Engine, "generate", until)
    found = run(tmp_path / "run")
    assert [row["sampling/vllm"] for row in found.metrics()] == [1, 0, 0]
    assert "2 of 3 steps" in found.reason


@pytest.mark.parametrize("options", [{"precision": "nf4", "rollout_copy": True}, {"backend": "unsloth"}], ids=str)
def test_what_an_engine_cannot_sample_is_refused_before_a_weight_is_loaded(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "load_for", lambda _: pytest.fail("loaded"))
    with pytest.raises(UserError, match="sampler"):
        train("lora", out=tmp_path / "run", sampler="vllm", progress=False, **options)


def test_a_card_too_small_for_both_is_said_before_a_weight_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = resolve.BaseFacts.ahead

    def on_a_card(asked: Any) -> resolve.BaseFacts:
        config = bases.load("tiny").model.config.to_dict()
        return dataclasses.replace(ahead(asked), card=2**21, shape=bases.shape_of("tiny", config))

    monkeypatch.setattr(resolve.BaseFacts, "ahead", on_a_card)
    monkeypatch.setattr(bases, "load_for", lambda _: pytest.fail("loaded"))
    with pytest.raises(UserError, match="weights once more"):
        run(tmp_path / "run")

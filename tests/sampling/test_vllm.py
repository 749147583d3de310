"""vLLM as a sampler, before a stand-in that keeps how it was asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import evaluate
from rlvr_lite.sampling import VLLMSampler, _vllm

SAMPLING = SamplingConfig(temperature=0.8, max_completion_length=24)


class FakeLLM:
    """Answers with what it was asked, and keeps how it was asked."""

    calls = 0
    last: FakeLLM

    def __init__(self, **options: Any):
        self.options = options
        FakeLLM.last = self
        dtype = {"auto": "bfloat16"}.get(options["dtype"], options["dtype"])
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(dtype=f"torch.{dtype}"))

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(decode=lambda ids: f"<think>{len(ids)}")

    def chat(self, chats: Any, parameters: Any, **options: Any) -> Any:
        self.asked = (chats, parameters, options)
        FakeLLM.calls += 1
        return [
            SimpleNamespace(
                prompt=None,
                prompt_token_ids=[1, 2],
                outputs=[
                    SimpleNamespace(
                        text=f"\\boxed{{{chat[-1]['content']}/{p.seed}}}",
                        token_ids=[7] * 5,
                        logprobs=[{7: SimpleNamespace(logprob=-0.25)}] * 5,
                        finish_reason="length" if p.seed % 2 else "stop",
                    )
                ],
            )
            for chat, p in zip(chats, parameters, strict=True)
        ]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.LLM = FakeLLM  # type: ignore[attr-defined]
    module.__version__ = "0.32.1"  # type: ignore[attr-defined]
    module.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    request.LoRARequest = lambda *facts: facts  # type: ignore[attr-defined]
    for name, value in (("vllm", module), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, value)


@pytest.mark.usefixtures("vllm")
def test_vllm_is_asked_for_every_answer_with_its_own_seed(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 20}))
    engine = VLLMSampler("some/model", tmp_path)
    prompts = [[{"role": "user", "content": text}] for text in ("a", "b")]
    answers = engine.sample(prompts, 2, SAMPLING, [3, 4, 5, 2**63 + 8])
    assert answers.texts == ["\\boxed{a/3}", "\\boxed{a/4}", "\\boxed{b/5}", "\\boxed{b/8}"]
    assert answers.ended.tolist() == [False, True, False, True]
    assert [completion.prompt for completion in answers.completions()] == ["<think>2"] * 4  # of the tokens
    assert answers.ids.tolist() == [[7] * 5] * 4
    assert answers.logprobs.tolist() == [[-0.25] * 5] * 4
    assert engine._llm.options["max_lora_rank"] == 32
    chats, parameters, options = engine._llm.asked
    assert options["lora_request"] == ("policy", 1, str(tmp_path))
    assert (parameters[0].top_k, parameters[0].max_tokens) == (-1, 24)
    assert len(chats) == 4


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("config", [{"peft_type": "LORA", "r": 8, "use_dora": True}, {"peft_type": "IA3"}])
def test_vllm_refuses_what_it_would_serve_wrongly(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="plain LoRA"):
        VLLMSampler("some/model", tmp_path)


@pytest.mark.usefixtures("vllm")
def test_an_evaluation_runs_on_vllm() -> None:
    FakeLLM.calls = 0
    found = evaluate("some/model", "chain-sum:test", k=2, n=3, engine="vllm", progress=False)
    assert FakeLLM.calls == 2  # greedy answers and drawn ones, each handed over at once
    assert found.facts["engine"] == "vllm"
    assert found.facts["policy"]["precision"] == "bf16"  # what was held, not what was asked for
    assert "vLLM" in found.facts["weights"]
    assert found["chain-sum:test"].k == 2
    with pytest.raises(UserError, match="name"):
        evaluate((torch.nn.Linear(1, 1), None), "chain-sum:test", engine="vllm", progress=False)


def test_without_vllm_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="pip install"):
        VLLMSampler("some/model")


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("found", ["0.31.0", "0.33.0", "dev"])
def test_a_vllm_that_was_never_tried_is_refused(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["vllm"], "__version__", found)
    with pytest.raises(UserError, match="pip install 'vllm"):
        VLLMSampler("some/model")


def test_the_extra_asks_for_the_versions_that_are_tried() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'"vllm{_vllm.TRIED}"' in project.read_text()


@pytest.mark.usefixtures("vllm")
def test_the_precision_that_is_named_is_the_one_that_is_held() -> None:
    sampler = VLLMSampler("some/model", precision="fp32")
    assert sampler._llm.options["dtype"] == "float32"
    assert sampler.precision == "fp32"
    with pytest.raises(UserError, match="nf4"):
        VLLMSampler("some/model", precision="nf4")


@pytest.mark.usefixtures("vllm")
def test_a_run_trained_in_four_bits_is_not_scored_on_sixteen_without_a_word() -> None:
    with pytest.raises(UserError, match="--precision bf16"):
        evaluate("tiny", "chain-sum:test", k=2, n=3, engine="vllm", precision="nf4", progress=False)
    found = evaluate("tiny", "chain-sum:test", k=2, n=3, engine="vllm", precision="fp16", progress=False)
    assert found.facts["policy"]["precision"] == "fp16"
    assert (Path(FakeLLM.last.options["model"]) / "config.json").is_file()  # the embedded base is a folder to vLLM


@pytest.mark.usefixtures("vllm")
def test_an_engine_that_does_not_start_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: Any) -> None:
        raise RuntimeError("no kernel image\nat line 3")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", fail)
    with pytest.raises(UserError, match=r"no kernel image.*--engine transformers") as caught:
        VLLMSampler("some/model")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("vllm")
def test_an_engine_that_dies_says_so_in_one_line() -> None:
    sampler = VLLMSampler("some/model")

    def die(*_: Any, **__: Any) -> None:
        raise RuntimeError("engine core died\nat line 3")

    sampler._llm.chat = die
    with pytest.raises(UserError, match=r"engine core died.*--engine transformers") as caught:
        sampler.sample([[{"role": "user", "content": "a"}]], 1, SAMPLING, [1])
    assert "\n" not in str(caught.value)

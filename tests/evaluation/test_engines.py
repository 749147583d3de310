from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite import bases
from rlvr_lite.analysis.memory import last_growth
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import evaluate, load_problems, score
from rlvr_lite.evaluation.batches import Batch, plan_batches
from rlvr_lite.evaluation.engines import TransformersEngine, VLLMEngine
from rlvr_lite.sampling import rollout
from rlvr_lite.sampling.cache import _GrowingLayer
from tests.models import random_qwen2

SAMPLING = SamplingConfig(temperature=0.8, max_new_tokens=24)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=25),
    st.integers(1, 9),
    st.integers(1, 50),
    st.integers(0, 9000),
    st.integers(1, 40),
)
def test_batches_hold_every_answer_once_and_no_more_than_there_is_room_for(
    lengths: list[int], k: int, longest: int, room: int, rows: int
) -> None:
    batches = list(plan_batches(lengths, k, longest, room, rows))
    cells = Counter((problem, i) for b in batches for problem in b.problems for i in range(b.start, b.stop))
    assert cells == Counter((problem, i) for problem in range(len(lengths)) for i in range(k))
    for batch in batches:
        count = len(batch.problems) * (batch.stop - batch.start)
        assert count == 1 or count <= rows
        assert count == 1 or count * last_growth(max(lengths[p] for p in batch.problems), longest)[1] <= room
    order = [lengths[p] for b in batches for p in b.problems]
    assert order == sorted(order)


@pytest.mark.parametrize(("prompts", "longest"), [((30, 30), 3), ((20, 50), 90), ((200, 200), 300)])
def test_the_cache_holds_no_more_than_the_plan_says(
    prompts: tuple[int, ...], longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room of the buffers of a real rollout whose answers are all of full length, a row."""
    held = []
    enlarged = _GrowingLayer._enlarged

    def watched(*arguments: Any) -> torch.Tensor:
        buffer = enlarged(*arguments)
        held.append(buffer.shape[-2])
        return buffer

    monkeypatch.setattr(_GrowingLayer, "_enlarged", staticmethod(watched))
    model = random_qwen2(layers=1)
    width = max(prompts)
    rollout(
        model,
        torch.randint(5, 60, (len(prompts), width)),
        torch.tensor([[0] * (width - n) + [1] * n for n in prompts]),
        group_size=2,
        sampling=SamplingConfig(max_new_tokens=longest),
        eos_ids=[],
        pad_id=0,
        row_keys=list(range(2 * len(prompts))),
    )
    assert max(held) == last_growth(width, longest)[1]


def test_halves_are_the_whole() -> None:
    assert Batch((4, 2, 7), 0, 3).halves() == (Batch((4,), 0, 3), Batch((2, 7), 0, 3))
    assert Batch((4,), 0, 3).halves() == (Batch((4,), 0, 1), Batch((4,), 1, 3))
    assert Batch((4,), 1, 2).halves() == (Batch((4,), 1, 2),)


@pytest.fixture(scope="module")
def tiny() -> bases.Base:
    return bases.load("tiny")


def outcome(base: bases.Base, problems: Any, **options: Any) -> list[dict[str, Any]]:
    task = load_problems("chain-sum:test", 1).task
    options = {"k": 3, "sampling": SAMPLING, **options}
    result = score(base.model, base.tokenizer, problems, messages=lambda p: task.messages(p, "bare"), **options)
    return result.rows()


def test_order_batching_and_company_of_problems_change_nothing(
    tiny: bases.Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = load_problems("chain-sum:test", 12).problems
    whole = outcome(tiny, problems)
    assert outcome(tiny, problems[::-1]) == whole
    monkeypatch.setattr(TransformersEngine, "room", lambda self: 90)  # one or two answers at a time
    assert outcome(tiny, problems) == whole
    alone = outcome(tiny, problems[:1])
    assert alone == [row for row in whole if row["id"] == problems[0].id]
    assert len({row["completion"] for row in whole}) > 12


def test_the_room_is_counted_in_cached_tokens(tiny: bases.Base) -> None:
    config: Any = tiny.model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 4
    engine = TransformersEngine(tiny.model, tiny.tokenizer)
    assert engine.room() == 2**30 // a_token
    prompts = [[{"role": "user", "content": text}] for text in ("1+1=?", "1+1+1=?")]
    short, long = engine.prompt_lengths(prompts)
    assert long == short + 2


class FakeLLM:
    """Answers with what it was asked, and keeps how it was asked."""

    calls = 0

    def __init__(self, **options: Any):
        self.options = options

    def chat(self, chats: Any, parameters: Any, **options: Any) -> Any:
        self.asked = (chats, parameters, options)
        FakeLLM.calls += 1
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        text=f"\\boxed{{{chat[-1]['content']}/{p.seed}}}",
                        token_ids=[0] * 5,
                        finish_reason="length" if p.seed % 2 else "stop",
                    )
                ]
            )
            for chat, p in zip(chats, parameters, strict=True)
        ]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.LLM = FakeLLM  # type: ignore[attr-defined]
    module.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    request.LoRARequest = lambda *facts: facts  # type: ignore[attr-defined]
    for name, value in (("vllm", module), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, value)


@pytest.mark.usefixtures("vllm")
def test_vllm_is_asked_for_every_answer_with_its_own_seed(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 20}))
    engine = VLLMEngine("some/model", tmp_path)
    prompts = [[{"role": "user", "content": text}] for text in ("a", "b")]
    answers = engine.sample(prompts, 2, SAMPLING, [3, 4, 5, 2**63 + 8])
    assert [[a.text for a in row] for row in answers] == [
        ["\\boxed{a/3}", "\\boxed{a/4}"],
        ["\\boxed{b/5}", "\\boxed{b/8}"],
    ]
    assert [[a.truncated for a in row] for row in answers] == [[True, False], [True, False]]
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
        VLLMEngine("some/model", tmp_path)


@pytest.mark.usefixtures("vllm")
def test_an_evaluation_runs_on_vllm() -> None:
    FakeLLM.calls = 0
    found = evaluate("some/model", "chain-sum:test", k=2, n=3, engine="vllm", progress=False)
    assert FakeLLM.calls == 2  # greedy answers and drawn ones, each handed over at once
    assert found.facts["engine"] == "vllm"
    assert found["chain-sum:test"].k == 2
    with pytest.raises(UserError, match="name"):
        evaluate((torch.nn.Linear(1, 1), None), "chain-sum:test", engine="vllm", progress=False)


def test_without_vllm_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="pip install"):
        VLLMEngine("some/model")

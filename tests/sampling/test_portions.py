"""Portions of completions: every one once, no more than there is room for, and no difference in what is sampled."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite import bases
from rlvr_lite.analysis.memory import last_growth
from rlvr_lite.config import SamplingConfig
from rlvr_lite.evaluation import load_problems, score
from rlvr_lite.sampling import Portion, TransformersSampler, plan_portions, rollout
from rlvr_lite.sampling._cache import _GrowingLayer
from tests.models import random_qwen2

SAMPLING = SamplingConfig(temperature=0.8, max_completion_length=24)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=25),
    st.integers(1, 9),
    st.integers(1, 50),
    st.integers(0, 9000),
    st.integers(1, 40),
)
def test_portions_hold_every_answer_once_and_no_more_than_there_is_room_for(
    lengths: list[int], k: int, longest: int, room: int, rows: int
) -> None:
    batches = list(plan_portions(lengths, k, longest, room, rows))
    cells = Counter((problem, i) for b in batches for problem in b.prompts for i in range(b.start, b.stop))
    assert cells == Counter((problem, i) for problem in range(len(lengths)) for i in range(k))
    for batch in batches:
        count = len(batch.prompts) * (batch.stop - batch.start)
        assert count == 1 or count <= rows
        assert count == 1 or count * last_growth(max(lengths[p] for p in batch.prompts), longest)[1] <= room
    order = [lengths[p] for b in batches for p in b.prompts]
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
        sampling=SamplingConfig(max_completion_length=longest),
        eos_ids=[],
        pad_id=0,
        row_keys=list(range(2 * len(prompts))),
    )
    assert max(held) == last_growth(width, longest)[1]


def test_halves_are_the_whole() -> None:
    assert Portion((4, 2, 7), 0, 3).halves() == (Portion((4,), 0, 3), Portion((2, 7), 0, 3))
    assert Portion((4,), 0, 3).halves() == (Portion((4,), 0, 1), Portion((4,), 1, 3))
    assert Portion((4,), 1, 2).halves() == (Portion((4,), 1, 2),)


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
    monkeypatch.setattr(TransformersSampler, "room", lambda self: 90)  # one or two answers at a time
    assert outcome(tiny, problems) == whole
    alone = outcome(tiny, problems[:1])
    assert alone == [row for row in whole if row["id"] == problems[0].id]
    assert len({row["completion"] for row in whole}) > 12


def test_the_room_is_counted_in_cached_tokens(tiny: bases.Base) -> None:
    config: Any = tiny.model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 4
    engine = TransformersSampler(tiny.model, tiny.tokenizer)
    assert engine.room() == 2**30 // a_token

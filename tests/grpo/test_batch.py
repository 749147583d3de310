"""Dropping, trimming and splitting rows: nothing that matters is lost."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.grpo import RolloutBatch, keep_informative, micro_batches, prompt_groups, trim
from tests.grpo.reference import step_batch

BATCHES = st.builds(
    step_batch,
    groups=st.integers(1, 6),
    size=st.integers(1, 5),
    prompt=st.integers(1, 8),
    length=st.integers(1, 9),
    dead=st.just(0),
    seed=st.integers(0, 10**6),
)


def contents(batch: RolloutBatch) -> list[tuple[object, ...]]:
    """What each row says, without padding."""
    rows = []
    for i in range(len(batch)):
        shown = batch.mask[i].bool()
        assert batch.old_logprobs is not None
        rows.append(
            (
                tuple(batch.prompt_ids[i][batch.prompt_mask[i].bool()].tolist()),
                tuple(batch.completions[i][shown].tolist()),
                tuple(batch.old_logprobs[i][shown].tolist()),
                batch.advantages[i].item(),
            )
        )
    return rows


@given(BATCHES)
@settings(max_examples=40, deadline=None)
def test_trim_loses_only_padding(batch: RolloutBatch) -> None:
    batch = replace(
        batch,
        prompt_ids=torch.nn.functional.pad(batch.prompt_ids, (3, 0)),
        prompt_mask=torch.nn.functional.pad(batch.prompt_mask, (3, 0)),
    )
    trimmed = trim(batch)
    assert contents(trimmed) == contents(batch)
    assert trimmed.prompt_mask[:, 0].any()
    assert trimmed.mask[:, -1].any()
    assert trimmed.old_logprobs is not None
    assert trimmed.old_logprobs.shape == trimmed.mask.shape


def test_trim_of_nothing() -> None:
    batch = step_batch()
    assert len(trim(batch.rows(torch.tensor([], dtype=torch.long)))) == 0
    empty = replace(batch, mask=torch.zeros_like(batch.mask))
    assert trim(empty).mask.shape[1] == 1


def test_rows_without_advantage_or_tokens_are_dropped() -> None:
    batch = step_batch(groups=3, size=2, dead=1)
    mask = batch.mask.clone()
    mask[4] = 0
    assert keep_informative(batch.advantages, mask).tolist() == [2, 3, 5]
    assert keep_informative(batch.advantages, mask, kl_coef=0.01).tolist() == [0, 1, 2, 3, 5]


def test_groups_are_runs_of_equal_prompts() -> None:
    ids = torch.tensor([[9, 4], [8, 4], [9, 4], [9, 4], [9, 4]])
    mask = torch.tensor([[0, 1], [0, 1], [0, 1], [1, 1], [1, 1]])
    assert prompt_groups(ids, mask).tolist() == [0, 0, 0, 1, 1]  # what stands under padding does not count
    assert prompt_groups(ids[:0], mask[:0]).tolist() == []


@given(BATCHES, st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_micro_batches_hold_every_row_once(batch: RolloutBatch, parts: int) -> None:
    split = micro_batches(batch, parts)
    assert len(split) == parts
    assert sorted(row for part in split for row in contents(part)) == sorted(contents(batch))


@given(BATCHES, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_micro_batches_are_even_and_keep_groups(batch: RolloutBatch, parts: int) -> None:
    split = micro_batches(batch, parts)
    tokens = [int(part.prompt_mask.sum() + part.mask.sum()) for part in split]
    group = prompt_groups(batch.prompt_ids, batch.prompt_mask)
    cost = batch.prompt_mask.sum(-1) + batch.mask.sum(-1)
    largest = int(torch.zeros(int(group[-1]) + 1, dtype=cost.dtype).index_add(0, group, cost).max())
    share = sum(tokens) / parts
    assert max(tokens) <= share + max(largest, 2 * share)
    if largest <= 2 * share:  # no group had to be cut, so all of it lies in one part
        whole = sum(int(prompt_groups(p.prompt_ids, p.prompt_mask)[-1]) + 1 for p in split if len(p))
        assert whole <= int(group[-1]) + 1


def test_micro_batches_balance_ragged_groups() -> None:
    batch = step_batch(groups=16, size=8, prompt=20, length=100, dead=0)
    tokens = [int(part.prompt_mask.sum() + part.mask.sum()) for part in micro_batches(batch, 4)]
    assert max(tokens) < 1.1 * min(tokens)

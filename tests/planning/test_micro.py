"""Training takes its micro-batch from the plan: more where there is room, and what was asked for on a CPU."""

from __future__ import annotations

import dataclasses

import pytest

from rlvr_lite import bases, tasks
from rlvr_lite.config import RunConfig
from rlvr_lite.resolve import BaseFacts, completions_at_once, fill


@pytest.fixture(scope="module")
def tiny():
    return bases.load("tiny", "bf16")


def planned(base, card=None, **fields):
    """What a run on a base is filled with, were the base on a card of so many bytes, and what is known of that base."""
    facts = BaseFacts.of(base)
    if card is not None:
        shape = bases.shape_of("base", base.model.config.to_dict())
        facts = dataclasses.replace(facts, card=card, shape=shape, itemsize=2)
    asked = RunConfig(prompts_per_step=16, max_completion_length=480, gradient_checkpointing=True, **fields)
    return fill(asked, facts=facts, task=tasks.get("chain-sum")), facts


def size(base, card=None, **fields):
    return planned(base, card, **fields)[0].micro_batch


def test_on_a_cpu_the_configuration_decides(tiny):
    assert size(tiny, micro_batch=5) == 5
    assert size(tiny) is None


def test_what_is_named_is_kept_on_a_card(tiny):
    assert size(tiny, card=2**36, micro_batch=5) == 5


@pytest.mark.parametrize("name", ["lora", "full", "dora"])
def test_a_larger_card_takes_more_and_no_more_than_a_step_has(tiny, name):
    sizes = [size(tiny, m * 2**20, method=name) for m in (1, 64, 256, 1024, 65536)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[0] < sizes[2] < sizes[-1] == 128


def test_rollouts_take_no_more_at_once_than_fit(tiny):
    assert completions_at_once(*planned(tiny)) is None
    sizes = [completions_at_once(*planned(tiny, m * 2**20)) for m in (1, 16, 64, 65536)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 8
    assert sizes[-1] == 128

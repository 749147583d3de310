"""Training takes its micro-batch from the plan: more where there is room, and what was asked for on a CPU."""

from __future__ import annotations

import pytest

from rlvr_lite import bases, methods
from rlvr_lite.config import RunConfig
from rlvr_lite.training.micro import planned_completions, planned_micro_batch


@pytest.fixture(scope="module")
def tiny():
    return bases.load("tiny", "bf16")


def filled(name, **fields):
    adapter = methods.resolve(name, RunConfig(method=name).adapter, "tiny")
    return RunConfig(
        method=name,
        precision="bf16",
        prompts_per_step=16,
        max_completion_length=512,
        gradient_checkpointing=True,
        rank=adapter.rank,
        alpha=adapter.alpha,
        targets=adapter.targets,
        method_options=dict(adapter.options),
        **fields,
    )


def test_on_a_cpu_the_configuration_decides(tiny):
    assert planned_micro_batch(filled("lora", micro_batch=5), tiny) == 5
    assert planned_micro_batch(filled("lora"), tiny) is None


@pytest.mark.parametrize("name", ["lora", "full", "dora"])
def test_a_larger_card_takes_more_and_no_more_than_a_step_has(tiny, name):
    sizes = [planned_micro_batch(filled(name), tiny, card=m * 2**20) for m in (1, 64, 256, 1024, 65536)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[0] < sizes[2] < sizes[-1] == 128


def test_rollouts_take_no_more_at_once_than_fit(tiny: bases.Base) -> None:
    assert planned_completions(filled("lora"), tiny) is None
    config = filled("lora")
    rows = (config.prompts_per_step or 1) * config.group_size
    sizes = [planned_completions(config, tiny, card=m * 2**20) for m in (1, 16, 64, 65536)]
    assert sizes == sorted(sizes, key=lambda n: n or 0)
    assert sizes[0] == config.group_size
    assert sizes[-1] == rows

"""What runs take before they start: counted by hand, monotone in what makes them longer, and never without its source."""

from __future__ import annotations

import dataclasses

import pytest

from rlvr_lite.config import RunConfig
from rlvr_lite.planning import Cost, cost_table, plan_without_task, run_cost, score_cost

RUN = RunConfig(
    base="Qwen2.5-0.5B",
    steps=10,
    prompts_per_step=4,
    group_size=8,
    max_completion_length=200,
    eval_problems=20,
    eval_k=4,
)


def cost(gpu: str = "RTX 3090", **changes) -> Cost:
    return run_cost(plan_without_task(dataclasses.replace(RUN, **changes), gpu))


def test_generated_tokens_are_counted_by_hand():
    """320 completions and two scorings of 20 x (4 + 1) answers, each of half of 200 tokens."""
    assert cost().tokens == 320 * 100 + 2 * 100 * 100
    assert cost(eval_before=False).tokens == 320 * 100 + 100 * 100
    assert cost(max_resample=1).tokens == 640 * 100 + 2 * 100 * 100
    assert cost(eval_problems=0).tokens == 320 * 100
    assert score_cost(plan_without_task(RUN, "T4")).tokens == 100 * 100


@pytest.mark.parametrize("longer", [{"steps": 20}, {"max_completion_length": 400}, {"eval_k": 8}])
def test_more_work_takes_longer_and_more_disk(longer):
    assert cost(**longer).seconds > cost().seconds
    assert cost(**longer).disk > cost().disk


def test_a_faster_card_takes_less_time_for_the_same_tokens():
    slow, fast = cost("T4"), cost("H100")
    assert (slow.tokens, slow.disk) == (fast.tokens, fast.disk)
    assert slow.seconds > fast.seconds
    assert (slow.device, fast.device) == ("T4", "H100")


def test_full_fine_tuning_keeps_more_on_disk_than_an_adapter():
    assert cost(method="full").disk > 10 * cost().disk


def test_the_throughput_says_that_it_is_assumed_and_costs_add_up():
    one = cost()
    assert "assumed, not measured" in str(one)
    assert (one + one).hours == pytest.approx(one.times(2).hours) == pytest.approx(2 * one.hours)
    assert (one + one).source == one.source
    rows = {row["part"]: row for row in cost_table({"search": one, "comparison": one.times(3)}, "Cost")}
    assert rows["all"]["runs"] == 4


def test_a_plan_prints_what_it_takes():
    found = plan_without_task(RUN, "RTX 3090")
    assert str(found.cost) in str(found)

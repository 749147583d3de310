"""Which runs a study makes: rows and axes, the equal search, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.study import Design
from rlvr_lite.study._design import SEARCH_SEED, half_decades, make_variants, split_axes


def design(methods=("lora", "dora"), axes=None, **changes) -> Design:
    variants = make_variants(list(methods), axes or {})
    values = {"shared": RunConfig(), "scale": "tiny", "seeds": (0, 1, 2), "reference": variants[0].label}
    return Design(variants, **values | changes)


def finish(plan: Design, accuracy) -> dict[str, float | None]:
    """Every trial of the study settled, wave by wave."""
    scores: dict[str, float | None] = {}
    while fresh := [trial for trial in plan.known(scores) if trial.key not in scores]:
        scores |= {trial.key: accuracy(trial) for trial in fresh}
    return scores


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_the_search_compares_at_the_rate_that_did_best_at_full_length(half, full):
    plan = design(["lora"])
    rates = half_decades(2e-3)
    place = {rate: i for i, rate in enumerate(rates)}
    scores = finish(
        plan,
        lambda trial: (
            (half if trial.rung == 0 else full)[place[trial.config.learning_rate]] / 5
            if trial.stage == "search"
            else 0.5
        ),
    )
    survivors = sorted(range(5), key=lambda i: half[i])[-2:]
    winner = rates[max(survivors, key=lambda i: full[i])]
    assert plan.learning_rate(plan.variants[0], scores) == winner
    finals = [trial for trial in plan.known(scores) if trial.stage == "final"]
    assert [(trial.config.seed, trial.config.learning_rate) for trial in finals] == [(s, winner) for s in (0, 1, 2)]


def test_every_method_gets_the_same_search_on_problems_and_a_seed_the_comparison_never_sees():
    plan = design(["lora", "ia3", "full"])
    scores = finish(plan, lambda trial: 0.5)
    for variant in plan.variants:
        rungs = plan.search(variant, scores)
        assert [(len(rung), rung[0].config.steps) for rung in rungs] == [(5, 20), (2, 40)]
        assert {trial.config.eval_split for rung in rungs for trial in rung} == {"validation"}
        assert {trial.config.seed for rung in rungs for trial in rung} == {SEARCH_SEED}
    assert {trial.config.eval_split for trial in plan.known(scores) if trial.stage != "search"} == {"test"}


def test_a_rate_whose_run_failed_is_never_chosen():
    plan = design(["lora"])
    scores = finish(plan, lambda trial: None if (trial.config.learning_rate or 0) > 1e-3 else 0.1)
    assert plan.learning_rate(plan.variants[0], scores) in half_decades(2e-3)[:2]
    broken = finish(plan, lambda trial: None)
    assert plan.learning_rate(plan.variants[0], broken) is None
    assert not [trial for trial in plan.known(broken) if trial.stage == "final"]


def test_of_equal_rates_the_lower_is_taken_whatever_the_order():
    plan = design(["lora"])
    assert plan.learning_rate(plan.variants[0], finish(plan, lambda trial: 0.5)) == min(half_decades(2e-3))


def test_cells_have_keys_of_their_own():
    plan = design(["lora", "dora"], {"rank": [4, 8]})
    trials = plan.known(finish(plan, lambda trial: 0.5))
    assert len({trial.key for trial in trials}) == len(trials) == 3 + 4 * (7 + 3)


def test_axes_multiply_and_a_budget_makes_rollouts_equal():
    plan = design(["lora"], {"prompts_per_step": [4, 16], "loss": ["dapo", "grpo"]}, budget=5120, tune="none")
    assert [variant.label for variant in plan.variants][:2] == [
        "lora prompts_per_step=4 loss=dapo",
        "lora prompts_per_step=4 loss=grpo",
    ]
    configs = [plan.config(variant) for variant in plan.variants]
    assert {config.steps * config.prompts_per_step * config.group_size for config in configs} == {5120}


def test_a_list_is_an_axis_and_of_a_list_field_a_list_of_lists():
    shared, axes = split_axes(
        {"rank": [1, 8], "targets": ["q_proj"], "rewards": [["accuracy"], ["format"]], "steps": 3}
    )
    assert shared == {"targets": ["q_proj"], "steps": 3}
    assert axes == {"rank": [1, 8], "rewards": [["accuracy"], ["format"]]}


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: split_axes({"rnak": [1]}), "did you mean 'rank'"),
        (lambda: split_axes({"rank": []}), "axis rank is empty"),
        (lambda: design(["lorra"]), "did you mean"),
        (lambda: design(["lora", "lora"]), "entered twice"),
        (lambda: design(["lora"], {"seed": [1, 2]}), "use seeds"),
        (lambda: design(["lora"], reference="dora"), "unknown reference"),
        (lambda: design(["lora"], seeds=()), "seeds must be different"),
        (lambda: design(["lora"], seeds=(1, 1)), "seeds must be different"),
        (lambda: design(["lora"], tune="rank"), "unknown tune"),
        (lambda: Design((), RunConfig(), "tiny", (0,)), "at least one method"),
        (lambda: design(["lora"], budget=5).config(make_variants(["lora"], {})[0]), "less than a step"),
        (lambda: make_variants({"a": {"method": "lora", "rnak": 3}}, {}), "unknown option"),
        (lambda: design(["lora"], shared=RunConfig(eval_problems=0)), "raise eval_problems"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(build, says):
    with pytest.raises(UserError, match=says) as caught:
        build()
    assert "\n" not in str(caught.value)

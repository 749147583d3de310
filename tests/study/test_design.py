"""Which runs a study makes: rows and axes, the equal search, and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.study import Design
from rlvr_lite.study._design import SEARCH_SEED, make_variants, split_axes
from rlvr_lite.study._lattice import MOST, doubt, optimum, place_of, rate_at


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


def curve(best: float, height: float = 0.8, width: float = 1.0):
    """Score of a trial whose optimum lies at this rate."""

    def score(trial) -> float:
        distance = abs(math.log10(trial.config.learning_rate / best)) if trial.stage == "search" else 0.0
        return max(0.0, height * (1 - distance / width))

    return score


@given(st.floats(-1.9, 1.9))
def test_the_search_ends_beside_the_optimum_wherever_it_lies(shift):
    """Up to two decades from the row's own rate, on either side: the rate chosen is the nearest of the lattice, and inside."""
    plan = design(["lora"])
    best = 2e-3 * 10**shift
    scores = finish(plan, curve(best, width=5.0))
    found = plan.optimum(plan.variants[0], scores)
    assert found.inside
    assert abs(math.log10(rate_at(found.place) / best)) <= 0.125 + 0.02  # half a step, and two figures
    finals = [trial for trial in plan.known(scores) if trial.stage == "final"]
    assert [(t.config.seed, t.config.learning_rate) for t in finals] == [(s, rate_at(found.place)) for s in (0, 1, 2)]


def test_all_rows_share_one_lattice_and_one_search_on_problems_and_seeds_the_comparison_never_sees():
    plan = design(["lora", "ia3", "full", "lora_plus"])
    scores = finish(plan, curve(1e-2))
    for variant in plan.variants:
        coarse, fine, *_ = plan.search(variant, scores)
        assert [(len(coarse), coarse[0].config.steps), (len(fine), fine[0].config.steps)] == [(5, 20), (6, 40)]
        for trial in (*coarse, *fine):
            assert trial.config.learning_rate == rate_at(place_of(trial.config.learning_rate))
            assert trial.config.eval_split == "validation"
        assert {t.config.seed for t in fine} == {SEARCH_SEED, SEARCH_SEED + 1}
    assert {trial.config.eval_split for trial in plan.known(scores) if trial.stage != "search"} == {"test"}


def test_a_search_that_only_climbs_stops_at_its_limit_and_says_that_it_is_at_an_edge():
    plan = design(["lora"])
    scores = finish(plan, lambda trial: trial.config.learning_rate or 0.0)
    found = plan.optimum(plan.variants[0], scores)
    assert not found.inside
    fine = {t.config.learning_rate for wave in plan.search(plan.variants[0], scores)[1:] for t in wave}
    assert len(fine) == MOST
    assert rate_at(found.place) == max(fine)
    assert "highest" in doubt(found, None)


def test_a_lattice_that_ends_in_nan_has_its_best_at_an_edge():
    """A rate that fails in one seed of the search is none to train with, and what lies just below it may not be the best."""
    plan = design(["lora"])

    def score(trial):
        broken = trial.stage == "search" and trial.config.learning_rate > 2e-3 and trial.config.seed != SEARCH_SEED
        return None if broken else curve(1e-2)(trial)

    found = plan.optimum(plan.variants[0], finish(plan, score))
    assert rate_at(found.place) == 0.0018
    assert (found.above, found.inside) == (None, False)
    assert "highest that was tried and worked" in doubt(found, None)


def test_a_row_whose_every_rate_fails_has_no_rate_and_no_runs():
    plan = design(["lora"])
    broken = finish(plan, lambda trial: None)
    assert plan.learning_rate(plan.variants[0], broken) is None
    assert not [trial for trial in plan.known(broken) if trial.stage == "final"]
    late = finish(plan, lambda trial: None if trial.stage == "search" and trial.rung else 0.5)
    assert plan.learning_rate(plan.variants[0], late) is None  # only at full length


def test_a_steep_neighbour_or_a_best_below_the_base_bears_no_verdict():
    found = optimum({-11: [0.6], -10: [0.7], -9: [0.68]}, -10)
    assert doubt(found, 0.2, effect=0.2) == ""
    assert "falls by 0.100" in doubt(found, 0.2, effect=0.05)
    assert "untrained base" in doubt(found, 0.75)
    assert doubt(None, 0.75) == ""


def test_of_equal_rates_the_search_stays_where_it_began():
    plan = design(["lora"])
    assert plan.learning_rate(plan.variants[0], finish(plan, lambda trial: 0.5)) == 0.0018


def test_trials_have_keys_of_their_own():
    plan = design(["lora", "dora"], {"rank": [4, 8]})
    trials = plan.known(finish(plan, lambda trial: 0.5))
    assert len({trial.key for trial in trials}) == len(trials) == 3 + 4 * (5 + 6 + 3)


def test_what_is_left_shrinks_to_nothing_and_never_counts_what_is_done():
    plan = design(["lora", "dora"])
    scores: dict[str, float | None] = {}
    left = [sum(count for _, _, count in plan.left(scores))]
    while fresh := [trial for trial in plan.known(scores) if trial.key not in scores]:
        scores[fresh[0].key] = curve(2e-3)(fresh[0])
        left.append(sum(count for _, _, count in plan.left(scores)))
    assert left[0] == 3 + 2 * (5 + 8 + 3)  # a search of four rates is expected
    assert left[-1] == 0
    assert all(a - b <= 1 + 8 for a, b in itertools.pairwise(left))


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
        (lambda: split_axes({"rnak": [1]}), "did you mean rank"),
        (lambda: split_axes({"rank": []}), "axis rank is empty"),
        (lambda: design(["lorra"]), "did you mean"),
        (lambda: design(["lora", "lora"]), "entered twice"),
        (lambda: design(["lora"], {"seed": [1, 2]}), "use seeds"),
        (lambda: design(["lora"], reference="dora"), "unknown reference"),
        (lambda: design(["lora"], seeds=()), "at least one"),
        (lambda: design(["lora"], seeds=(1, 1)), "seeds must be different"),
        (lambda: design(["lora"], seeds=(0, SEARCH_SEED + 1)), "the search's 1000 to 1001"),
        (lambda: design(["lora"], search_seeds=0), "search_seeds must be"),
        (lambda: design(["lora"], margin=1.5), "margin must lie"),
        (lambda: design(["lora"], tune="rank"), "unknown tune"),
        (lambda: Design((), RunConfig(), "tiny", (0,)), "at least one method"),
        (lambda: design(["lora"], budget=5).config(make_variants(["lora"], {})[0]), "less than a step"),
        (lambda: make_variants({"a": {"method": "lora", "rnak": 3}}, {}), "no option rnak: did you mean rank"),
        (lambda: design(["lora"], shared=RunConfig(eval_problems=0)), "raise eval_problems"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(build, says):
    with pytest.raises(UserError, match=says) as caught:
        build()
    assert "\n" not in str(caught.value)

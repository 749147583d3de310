from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rlvr_lite.analysis import replication as r
from rlvr_lite.analysis.statistics import Difference, detectable_difference, paired_difference
from rlvr_lite.errors import UserError


def study(
    rng: np.random.Generator,
    methods: int = 2,
    seeds: int = 3,
    problems: int = 100,
    shift: float = 0.0,
    training: float = 0.3,
) -> NDArray[np.float64]:
    """Scores [M, S, P] at k = 8: difficulties shared by all, training noise by run and by (run, problem)."""
    level = rng.normal(0, 1.5, (1, 1, problems)) + np.arange(methods)[:, None, None] * shift
    level = (
        level
        + training * rng.standard_normal((methods, seeds, 1))
        + 0.5 * rng.standard_normal((methods, seeds, problems))
    )
    return rng.binomial(8, 1 / (1 + np.exp(-level))) / 8


@pytest.mark.parametrize("training", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("seeds", [2, 3])
def test_the_same_method_twice_is_called_different_at_most_5_times_in_100(training: float, seeds: int) -> None:
    rng = np.random.default_rng(round(100 * training) + seeds)
    grids = [study(rng, seeds=seeds, training=training) for _ in range(600)]
    false = np.mean([r.seed_problem_difference(*grid).p_value < 0.05 for grid in grids])
    assert false <= 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5
    if training >= 0.3:  # forgetting the seeds is what goes wrong in practice
        assert np.mean([paired_difference(*grid.mean(axis=1)).excludes_zero for grid in grids[:200]]) > 0.3


def test_many_names_of_one_method_stay_below_5_percent_together() -> None:
    rng = np.random.default_rng(5)
    false = 0
    for _ in range(200):
        grid = study(rng, methods=6)
        found = r.compare_to_reference(dict(zip("abcdef", grid, strict=True)), "a")
        false += any(c.verdict in ("better", "worse") for c in found)
    assert false / 200 <= 0.1


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(1)
    found = [r.seed_problem_difference(*study(rng, shift=1.0, training=0.1)) for _ in range(200)]
    assert np.mean([d.low > 0 for d in found]) > 0.9
    truth = np.mean([d.value for d in found])
    assert np.mean([d.low <= truth <= d.high for d in found]) >= 0.92


def test_the_promised_power_is_kept_over_seeds() -> None:
    seeds, problems, k, rng = 4, 60, 8, np.random.default_rng(0)
    delta = detectable_difference(problems, k, seeds=seeds, within=0.2, between=0.1, seed_sd=0.02)
    shown = 0
    for _ in range(300):
        chance = 0.5 + 0.2236 * rng.choice([-1, 1], problems)
        shift = np.stack([np.zeros(problems), delta + 0.1 * rng.choice([-1, 1], problems)])
        level = (chance + shift)[:, None] + 0.02 * rng.standard_normal((2, seeds, 1))
        shown += r.seed_problem_difference(*(rng.binomial(k, level.clip(0, 1)) / k)).low > 0
    assert 0.72 <= shown / 300 <= 0.92


def test_one_seed_falls_back_to_problems() -> None:
    grid = study(np.random.default_rng(0), seeds=1)
    assert r.seed_problem_difference(*grid) == paired_difference(grid[0, 0], grid[1, 0])


def test_identical_runs_do_not_differ_and_constant_gaps_do() -> None:
    a = study(np.random.default_rng(0))[0]
    same = r.seed_problem_difference(a, a)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    gap = r.seed_problem_difference(np.zeros((3, 9)), np.ones((3, 9)))
    assert (gap.low, gap.high, gap.p_value) == (1, 1, 0)


def test_the_interval_and_the_p_value_say_the_same() -> None:
    rng = np.random.default_rng(7)
    for _ in range(100):
        d = r.seed_problem_difference(*study(rng, shift=0.4))
        assert d.excludes_zero == (d.p_value < 0.05)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("training", [0.0, 0.5])
def test_joint_draws_are_as_wide_as_the_interval(training: float, seeds: int) -> None:
    grid = study(np.random.default_rng(3), seeds=seeds, training=training, shift=0.5)
    draws = r.joint_draws(grid, draws=20_000)
    np.testing.assert_allclose(np.median(draws, axis=0), grid.mean(axis=(1, 2)), atol=0.004)
    d = r.seed_problem_difference(*grid)
    low, high = np.quantile(draws[:, 1] - draws[:, 0], (0.025, 0.975))
    # A sum of two noises has no exact interval: the formula pays for both and is never the narrower one.
    assert 0.85 * (d.high - d.low) < high - low < 1.05 * (d.high - d.low) or d.high == 1
    np.testing.assert_array_equal(draws, r.joint_draws(grid, draws=20_000))


def test_methods_that_move_together_are_drawn_together() -> None:
    """A seed that lifts both by the same leaves their difference alone, however far it moves each."""
    y = np.random.default_rng(0).random((3, 40)) * 0.1 + np.array([0.1, 0.4, 0.7])[:, None]
    draws = r.joint_draws(np.stack([y, y + 0.01]), draws=500)
    assert np.std(draws[:, 0]) > 0.1
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 0.01, atol=1e-9)


def test_with_one_seed_only_problems_are_drawn() -> None:
    grid = study(np.random.default_rng(3), seeds=1)
    draws = r.joint_draws(grid, draws=20_000)
    d = grid[1, 0] - grid[0, 0]
    assert np.std(draws[:, 1] - draws[:, 0]) == pytest.approx(d.std(ddof=1) / 10, rel=0.03)


def test_the_probability_of_being_best_is_shared_among_equals() -> None:
    rng = np.random.default_rng(2)
    shares = np.mean([r.probability_of_best(study(rng, 3), draws=200) for _ in range(150)], axis=0)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.07)
    assert r.probability_of_best(study(rng, 3, shift=3.0, training=0.1))[2] > 0.99


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_probability_of_being_best_is_not_surer_than_it_may_be(seeds: int) -> None:
    """Between two equal methods 95 % for one of them comes up no more often than one time in ten."""
    rng = np.random.default_rng(seeds)
    sure = [max(r.probability_of_best(study(rng, seeds=seeds), draws=400)) >= 0.95 for _ in range(300)]
    assert np.mean(sure) <= 0.1 + 3 * (0.1 * 0.9 / 300) ** 0.5


def test_an_accuracy_over_seeds_and_problems_covers_the_truth() -> None:
    rng = np.random.default_rng(4)
    intervals = [r.seed_problem_interval(study(rng, 1, training=0.2)[0]) for _ in range(500)]
    assert np.mean([i.low <= 0.5 <= i.high for i in intervals]) >= 0.93
    assert r.seed_problem_interval([[1.0, 0.0, 1.0]]).high < 1


def test_seeds_that_tie_by_chance_are_no_certainty() -> None:
    tied = np.array([[0.0, 0.25, 0.5, 0.0], [0.25, 0.0, 0.0, 0.5]])  # equal means, and little that problems share
    found = r.seed_problem_interval(tied)
    assert found.high - found.low > 0.1
    difference = r.seed_problem_difference(np.zeros((2, 4)), tied)
    assert difference.low < 0 < difference.high
    assert difference.p_value > 0.05


@pytest.mark.parametrize(
    ("low", "high", "p", "margin", "said"),
    [
        (0.01, 0.2, 0.04, 0.0, "better"),
        (0.01, 0.2, 0.06, 0.0, "no significant difference"),
        (-0.01, 0.2, 0.04, 0.0, "no significant difference"),
        (-0.2, -0.01, 0.01, 0.0, "worse"),
        (-0.01, 0.01, 0.9, 0.02, "equivalent"),
        (0.040, 0.042, 0.001, 0.05, "better, within the equivalence margin"),
        (-0.042, -0.040, 0.001, 0.05, "worse, within the equivalence margin"),
        (0.040, 0.060, 0.001, 0.05, "better"),
        (-0.01, 0.03, 0.9, 0.02, "no significant difference"),
    ],
)
def test_nothing_is_said_beyond_the_data(low: float, high: float, p: float, margin: float, said: str) -> None:
    d = Difference((low + high) / 2, low, high, p, 0.01)
    assert r.in_words(r.verdict(d, p), r.equivalent(d, margin)) == said


def test_what_a_choice_owes_to_luck() -> None:
    """Nothing from one seed, from seeds that agree, and where one rate is far ahead; more, the closer and the noisier."""
    assert r.selection_variance([[0.9], [0.1]]) == 0
    assert r.selection_variance([[0.8, 0.9], [0.7, 0.8], [0.6, 0.7]]) == pytest.approx(
        0
    )  # a seed moves all rates alike
    clear = r.selection_variance([[0.90, 0.92], [0.40, 0.38]])
    close = r.selection_variance([[0.90, 0.80], [0.80, 0.88]])
    assert clear < 0.05 * close
    # two rates 0.01 apart, each mean known to 0.05: the worse one would win in half of all searches
    noisy = r.selection_variance(
        0.5 + np.array([[0.01], [0.0]]) + 0.05 * 2**0.5 * np.array([[1, -1], [-1, 1]]) / 2**0.5
    )
    assert 0.3 * 0.01**2 < noisy < 0.7 * 0.01**2


def test_the_luck_of_the_choice_widens_the_interval_and_its_p_value_says_the_same() -> None:
    grid = study(np.random.default_rng(3), shift=0.6)
    plain = r.seed_problem_difference(*grid)
    wide = r.seed_problem_difference(*grid, of_choice=0.04**2)
    assert wide.high - wide.low > plain.high - plain.low
    assert wide.p_value > plain.p_value
    assert wide.excludes_zero == (wide.p_value < 0.05)
    draws = r.joint_draws(grid, draws=4000, of_choice=[0.0, 0.2**2])
    assert np.std(draws[:, 1]) > 0.19 > np.std(draws[:, 0])


def test_the_comparison_of_a_study() -> None:
    grid = study(np.random.default_rng(0), 3, shift=2.0, training=0.1)
    found = r.compare_to_reference(dict(zip(["lora", "dora", "miss"], grid, strict=True)), "lora")
    assert [c.method for c in found] == ["dora", "miss"]
    assert [c.verdict for c in found] == ["better", "better"]
    assert all(c.adjusted_p >= c.difference.p_value for c in found)
    with pytest.raises(UserError, match="lora"):
        r.compare_to_reference({"lora": grid[0]}, "loar")


@pytest.mark.parametrize("bad", [[[0.5]], [0.5, 0.5], np.zeros((0, 3)), [[0.5, np.nan]]])
def test_what_is_no_table_of_runs_is_refused(bad: Any) -> None:
    with pytest.raises(UserError):
        r.seed_problem_difference(bad, bad)
    with pytest.raises(UserError):
        r.compare_to_reference({"a": bad, "b": np.zeros((2, 3))}, "a")

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.analysis import statistics as s
from rlvr_lite.errors import UserError

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2, max_size=30)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


# Student's t: values of printed tables.
@pytest.mark.parametrize(
    ("q", "df", "value"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.95, 5, 2.01505), (0.995, 10, 3.16927), (0.975, 120, 1.97993)],
)
def test_student_quantiles_are_those_of_the_tables(q: float, df: float, value: float) -> None:
    assert s.student_quantile(q, df) == pytest.approx(value, abs=2e-5)
    assert s.student_quantile(1 - q, df) == -s.student_quantile(q, df)


def test_student_becomes_normal() -> None:
    for df in (1e5, 1e9):
        assert s.student_quantile(0.975, df) == pytest.approx(s.normal_quantile(0.975), abs=5e-5)
    with pytest.raises(ValueError, match="df"):
        s.student_quantile(0.975, 0)


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=10))
def test_clusters_of_one_size_give_the_standard_error_of_their_means(rows: list[list[float]]) -> None:
    x = np.array(rows)
    labels = np.repeat(np.arange(len(rows)), 3).tolist()
    expected = x.mean(axis=1).std(ddof=1) / math.sqrt(len(rows))
    assert s.clustered_standard_error(x.ravel(), labels) == pytest.approx(expected, abs=1e-12)


def test_clustering_counts_equal_answers_once() -> None:
    answers, labels = [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]
    assert s.clustered_standard_error(answers, labels) > s.clustered_standard_error(answers, range(6))
    with pytest.raises(UserError):
        s.clustered_standard_error(answers, [0] * 6)
    with pytest.raises(UserError):
        s.clustered_standard_error(answers, [0, 1])


@given(SCORES)
def test_an_accuracy_interval_holds_the_mean_and_stays_in_range(scores: list[float]) -> None:
    interval = s.accuracy_interval(scores)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.high > interval.low
    mirrored = s.accuracy_interval([1 - x for x in scores])
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-12)
    assert s.accuracy_interval(scores, level=0.8).low >= interval.low


def test_wilsons_interval_for_plain_counts() -> None:
    # Wilson's own formula for 7 of 30.
    interval = s.accuracy_interval([1] * 7 + [0] * 23)
    z, n, p = s.normal_quantile(0.975), 30, 7 / 30
    centre, half = (p + z * z / 2 / n), z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert interval.low == pytest.approx((centre - half) / (1 + z * z / n))
    assert interval.high == pytest.approx((centre + half) / (1 + z * z / n))


@pytest.mark.parametrize("scores", [[], [0.5, 40.0], [[0.5]], [0.5, math.nan], [-0.1, 0.4]])
def test_what_is_no_list_of_accuracies_is_refused(scores: Any) -> None:
    with pytest.raises(UserError):
        s.accuracy_interval(scores)


def _coverage(n: int, k: int, accuracy: float, trials: int, seed: int) -> float:
    """Share of simulated benchmarks whose interval holds the true accuracy; problems differ in difficulty."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(accuracy, 1 - accuracy, (trials, n))
    scores = rng.binomial(k, chance) / k
    hits = 0
    for row in scores:
        interval = s.accuracy_interval(row)
        hits += interval.low <= accuracy <= interval.high
    return hits / trials


@pytest.mark.parametrize("n", [30, 500])
@pytest.mark.parametrize("k", [1, 8])
def test_95_percent_intervals_hold_the_truth_95_times_in_100(n: int, k: int) -> None:
    accuracies = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
    mean = np.mean([_coverage(n, k, accuracy, 700, seed) for seed, accuracy in enumerate(accuracies)])
    assert 0.94 <= mean <= 0.96


@pytest.mark.parametrize("n", [30, 500])
@pytest.mark.parametrize("k", [1, 8])
def test_so_do_those_of_paired_differences(n: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    trials, hits = (3000 if n == 30 else 700), 0
    for _ in range(trials):
        chance = rng.beta(0.8, 1.2, n)
        better = chance + 0.15 * (1 - chance) * rng.random(n) * 2  # 0.15 (1 - 0.4) = 0.09 in the mean
        d = s.paired_difference(rng.binomial(k, chance) / k, rng.binomial(k, np.minimum(better, 1)) / k)
        hits += d.low <= 0.09 <= d.high
    assert 0.93 <= hits / trials <= 0.97


def test_the_bootstrap_agrees_with_the_formula_on_many_problems() -> None:
    scores = np.random.default_rng(0).binomial(8, 0.4, 400) / 8
    boot, formula = s.bootstrap_interval(scores), s.accuracy_interval(scores)
    assert boot.low == pytest.approx(formula.low, abs=0.002)
    assert boot.high == pytest.approx(formula.high, abs=0.002)
    assert s.bootstrap_interval(scores) == boot
    assert s.bootstrap_interval(scores, seed=1) != boot


def test_bca_leans_towards_the_long_tail() -> None:
    values = [0.0] * 25 + [0.1, 0.2, 0.4, 0.8, 1.0]
    interval = s.bootstrap_interval(values)
    assert interval.high - interval.value > interval.value - interval.low
    resampled = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert interval.low > low + 0.005  # acceleration moves both ends of the plain percentiles towards the tail
    assert interval.high > high + 0.005
    assert s.bootstrap_interval([0.5, 0.5]).low == 0.5


def test_the_bootstrap_takes_any_statistic() -> None:
    values = np.arange(21.0)
    interval = s.bootstrap_interval(values, lambda sample: np.median(sample, axis=-1))
    assert interval.value == 10
    assert 3 < interval.low < 10 < interval.high < 17


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7))
def test_the_permutation_test_is_all_sign_patterns(d: list[int]) -> None:
    hits = [
        abs(sum(x * sign for x, sign in zip(d, signs, strict=True))) >= abs(sum(d))
        for signs in product((1, -1), repeat=len(d))
    ]
    assert s.permutation_p_value(d) == pytest.approx(np.mean(hits))


def test_on_greedy_answers_it_is_mcnemars_exact_test() -> None:
    won, lost = 70, 45
    tail = sum(math.comb(won + lost, i) for i in range(won, won + lost + 1)) / 2 ** (won + lost)
    assert s.permutation_p_value([1] * won + [-1] * lost + [0] * 300) == pytest.approx(2 * tail)


def test_sampled_sign_patterns_come_close_to_all() -> None:
    d = np.random.default_rng(1).normal(0.3, 1, 14)  # off any grid: enumerated
    exact = s.permutation_p_value(d)
    # Differences that are zero in effect push the count over the limit of enumeration.
    sampled = s.permutation_p_value([*d, 1e-7, -1e-7], draws=40_000)
    assert sampled == pytest.approx(exact, abs=0.01)
    assert s.permutation_p_value([0.0, 0.0]) == 1.0


@settings(max_examples=40)
@given(SCORES, st.randoms())
def test_a_paired_difference_ignores_order_and_turns_its_sign(scores: list[float], random: Any) -> None:
    pairs = [(x, random.choice([0.0, 0.5, 1.0])) for x in scores]
    a, b = zip(*pairs, strict=True)
    d, back = s.paired_difference(a, b), s.paired_difference(b, a)
    assert d.value == pytest.approx(np.mean(b) - np.mean(a))
    assert (back.value, back.low, back.high) == pytest.approx((-d.value, -d.high, -d.low))
    assert d.low <= d.value <= d.high
    random.shuffle(pairs)
    a, b = zip(*pairs, strict=True)
    assert s.paired_difference(a, b).low == pytest.approx(d.low)


def test_pairing_removes_the_difficulty_of_the_problems() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(100)
    d = s.paired_difference(hard * 0.9, hard * 0.9 + 0.05 + 0.01 * rng.random(100))
    assert d.excludes_zero
    assert d.p_value < 0.001
    assert d.standard_error < 0.1 * s.clustered_standard_error(hard, range(100))


def test_few_greedy_answers_that_differ_show_no_difference() -> None:
    d = s.paired_difference([0] * 30, [1, 1] + [0] * 28)
    assert not d.excludes_zero
    same = s.paired_difference([0, 1, 1], [0, 1, 1])
    assert same.value == 0
    assert same.p_value == 1
    assert same.low < 0 < same.high


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(UserError):
        s.paired_difference([1, 0], [1, 0, 1])
    with pytest.raises(UserError):
        s.paired_difference([1], [0])


@given(P_VALUES)
def test_holm_is_between_uncorrected_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = s.holm(p)
    for raw, corrected in zip(p, adjusted, strict=True):
        assert raw <= corrected <= min(1, raw * len(p)) + 1e-12
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    rejected = [min(s.holm(rng.random(10))) < 0.05 for _ in range(4000)]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.012)


def test_the_detectable_difference_is_detected_as_often_as_promised() -> None:
    n, k, rng = 60, 8, np.random.default_rng(0)
    delta = s.detectable_difference(n, k, within=0.2, between=0.1)
    spread = math.sqrt(0.25 - 0.2)  # chances of .5 +- spread have p (1 - p) = .2
    shown = 0
    for _ in range(1000):
        chance = 0.5 + spread * rng.choice([-1, 1], n)
        shift = delta + 0.1 * rng.choice([-1, 1], n)
        shown += s.paired_difference(rng.binomial(k, chance) / k, rng.binomial(k, chance + shift) / k).low > 0
    assert 0.76 <= shown / 1000 <= 0.86


def test_more_of_anything_detects_smaller_differences() -> None:
    base = s.detectable_difference(30, 8, seed_sd=0.02)
    assert s.detectable_difference(500, 8, seed_sd=0.02) < base
    assert s.detectable_difference(30, 32, seed_sd=0.02) < base
    few, many = (s.detectable_difference(30, 8, seed_sd=0.02, seeds=seeds) for seeds in (3, 6))
    assert many < few
    assert s.detectable_difference(30, 8, seed_sd=0.02, comparisons=13) > base
    for bad in ({"problems": 0}, {"k": 0}, {"power": 1.0}, {"within": 0.3}):
        with pytest.raises(UserError):
            s.detectable_difference(**{"problems": 30, "k": 8, **bad})


def test_the_sampling_variance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    chance = rng.random(4000)
    correct = rng.random((4000, 2)) < chance[:, None]
    assert s.sampling_variance(correct) == pytest.approx(np.mean(chance * (1 - chance)), abs=0.01)
    with pytest.raises(UserError):
        s.sampling_variance([[1], [0]])

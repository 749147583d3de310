"""Verdicts of simulated studies, their search included, are wrong no more often than they may be."""

from __future__ import annotations

import pytest

from tests.benchmarks.verdicts import simulate

STUDIES = 100
SLACK = 3 * (0.05 * 0.95 / STUDIES) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("case", ["same", "other peak, narrow"])
def test_methods_that_are_equally_good_are_ranked_at_most_5_times_in_100(case: str) -> None:
    found = simulate(case, STUDIES, seed_sd=0.04)
    assert found["better"] + found["worse"] <= 0.05 + SLACK
    assert found["coverage"] >= 0.95 - SLACK


@pytest.mark.slow
def test_a_difference_beyond_the_margin_is_called_equivalent_at_most_5_times_in_100() -> None:
    found = simulate("beyond 1.1 margins", STUDIES, seed_sd=0.02)
    assert found["within margin"] <= 0.05 + SLACK
    assert found["worse"] == 0


@pytest.mark.slow
def test_a_real_gain_is_found() -> None:
    assert simulate("gain 0.1", STUDIES // 2, seed_sd=0.02)["better"] > 0.25

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import avg_at_k, length_quantiles, maj_at_k, pass_at_k, pass_curve

ANSWERS = st.lists(st.one_of(st.none(), st.sampled_from(["1", "2", "3"])), min_size=1, max_size=9)


@pytest.mark.parametrize("n", range(1, 11))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n: int) -> None:
    for c in range(n + 1):
        outcome = [1] * c + [0] * (n - c)
        for k in range(1, n + 1):
            subsets = list(combinations(outcome, k))
            assert pass_at_k(n, c, k) == float(Fraction(sum(map(any, subsets)), len(subsets)))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(UserError):
        pass_at_k(n, c, k)


def test_pass_at_k_stays_exact_where_binomials_are_huge() -> None:
    assert pass_at_k(2048, 1, 1024) == 0.5


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=8))
def test_the_curve_runs_from_avg_to_any_and_never_falls(rows: list[list[bool]]) -> None:
    curve = pass_curve(rows)
    np.testing.assert_allclose(curve[:, 0], avg_at_k(rows), atol=1e-15)
    np.testing.assert_array_equal(curve[:, -1], np.any(rows, axis=1))
    assert (np.diff(curve, axis=1) >= 0).all()


def test_a_table_without_samples_is_refused() -> None:
    with pytest.raises(UserError):
        avg_at_k([[], []])


@given(ANSWERS, st.randoms())
def test_majority_ignores_order(answers: list[str | None], random: object) -> None:
    pairs = [(answer, answer == "1") for answer in answers]
    before = maj_at_k([a for a, _ in pairs], [c for _, c in pairs])
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert maj_at_k([a for a, _ in pairs], [c for _, c in pairs]) == before
    assert 0 <= before <= 1


def test_majority_counts_spellings_of_the_right_answer_together() -> None:
    assert maj_at_k(["1/2", "0.5", "3", "3", "\\frac12"], [True, True, False, False, True]) == 1.0


@pytest.mark.parametrize(
    ("answers", "share"), [("12", 1 / 2), ("123", 1 / 3), ("1122", 1 / 2), ("1223", 0.0), ("223311", 1 / 3)]
)
def test_a_tie_is_broken_at_random(answers: str, share: float) -> None:
    assert maj_at_k(list(answers), [answer == "1" for answer in answers]) == pytest.approx(share)


def test_silence_does_not_vote() -> None:
    assert maj_at_k([None, None, None, "7"], [False, False, False, True]) == 1.0
    assert maj_at_k([None, None], [False, False]) == 0.0


def test_length_quantiles_are_those_of_all_answers() -> None:
    quantiles = length_quantiles([[1, 2], [3, 4]])
    assert (quantiles["min"], quantiles["median"], quantiles["max"]) == (1.0, 2.5, 4.0)

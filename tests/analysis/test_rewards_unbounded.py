"""Intervals of rewards, which unlike accuracies know no bounds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite.analysis.replication import seed_problem_difference, seed_problem_interval
from rlvr_lite.analysis.statistics import accuracy_interval, mean_interval, paired_difference

VALUES = st.floats(-50, 50, allow_nan=False).map(lambda v: round(v, 3))


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=4))
def test_an_interval_holds_its_mean_and_scales_with_the_rewards(rows):
    x = np.array(rows)
    found, doubled = seed_problem_interval(x), seed_problem_interval(2 * x)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    if x.min() < 0:  # so that neither is taken for accuracies
        assert np.allclose([2 * found.low, 2 * found.high], [doubled.low, doubled.high], atol=1e-6)
    difference = seed_problem_difference(x, x[::-1] + 3)
    assert difference.low - 1e-9 <= difference.value <= difference.high + 1e-9


def test_accuracies_keep_their_interval():
    scores = [0.0, 0.5, 1.0, 1.0]
    assert mean_interval(scores) == accuracy_interval(scores)
    assert paired_difference([0.0, 0.1], [5.0, 5.3]).high > 1

"""One holder of a trial at a time; what a dead one held is free again."""

from __future__ import annotations

import pytest

from rlvr_lite.study._lease import lease


def test_only_one_holds_it_and_it_is_free_afterwards(tmp_path):
    path = tmp_path / "trial.lock"
    with lease(path) as first:
        assert first
        with lease(path) as second:
            assert not second
        with lease(path) as third:  # the loser's leaving does not free it
            assert not third
    with lease(path) as again:
        assert again


def test_an_error_inside_frees_it(tmp_path):
    path = tmp_path / "trial.lock"
    with pytest.raises(ZeroDivisionError), lease(path):
        _ = 1 / 0
    with lease(path) as mine:
        assert mine

"""Row keys and their uniform numbers: functions of what they are named by, and of nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.sampling import row_keys
from rlvr_lite.sampling._keys import UNIFORM_BLOCK, uniforms

PART = st.one_of(st.integers(), st.text(max_size=5))


@given(st.integers(0, 2**40), st.lists(PART, max_size=3), st.lists(PART, max_size=3))
@settings(max_examples=50, deadline=None)
def test_keys_differ_by_every_part(seed: int, parts: list[int | str], others: list[int | str]) -> None:
    keys = row_keys(seed, *parts, rows=5)
    assert len(set(keys)) == 5
    assert all(0 <= key < 2**64 for key in keys)
    assert keys == row_keys(seed, *parts, rows=9)[:5]
    if parts != others:
        assert not set(keys) & set(row_keys(seed, *others, rows=5))
    assert not set(keys) & set(row_keys(seed + 1, *parts, rows=5))


def test_keys_are_the_same_in_every_process() -> None:
    assert row_keys(3, "train", 1, rows=2) == [3987338158796227209, 11013522076519919092]


@given(st.integers(0, 50), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_a_rows_numbers_do_not_depend_on_the_others(block: int, row: int) -> None:
    keys = row_keys(0, rows=4)
    assert (uniforms(keys, block)[row] == uniforms(keys[row : row + 1], block)[0]).all()


def test_blocks_are_one_stream() -> None:
    whole = np.random.Generator(np.random.Philox(key=5)).random(3 * UNIFORM_BLOCK)
    assert (np.concatenate([uniforms([5], block)[0] for block in range(3)]) == whole).all()


def test_numbers_are_uniform_and_independent() -> None:
    keys = row_keys(1, rows=200)
    found = np.concatenate([uniforms(keys, block) for block in range(3)], axis=1).T[:600]
    counts, _ = np.histogram(found, bins=20, range=(0, 1))
    expected = found.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square, 19 degrees of freedom, p = 7e-4
    assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]) < 0.01
    assert len(np.unique(found)) == found.size

"""The order of prompts is a function of the seed and the position, and of nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite.training._order import generation_prompts, refill

sizes = st.integers(1, 40)


@given(st.integers(0, 2**31), sizes, sizes, st.booleans())
def test_every_epoch_shows_every_prompt_once(seed, count, size, shuffle):
    batches = range(-(-3 * size // count))
    seen = [i for w in batches for i in generation_prompts(seed, w, count, size, shuffle=shuffle)]
    for epoch in range(3):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(st.integers(0, 1000), st.integers(0, 50), sizes, st.integers(2, 40))
def test_a_generation_batch_is_found_without_those_before_it(seed, number, count, size):
    asked = generation_prompts(seed, number, count, size, shuffle=True)
    _ = [generation_prompts(seed + 1, w, count, size, shuffle=True) for w in range(3)]
    assert generation_prompts(seed, number, count, size, shuffle=True) == asked


def test_epochs_and_seeds_differ():
    first, second = (generation_prompts(0, w, 40, 40, shuffle=True) for w in (0, 1))
    assert first != second
    assert first != generation_prompts(1, 0, 40, 40, shuffle=True)


@given(st.integers(0, 1000), st.integers(0, 9), st.integers(0, 20), sizes, st.data())
def test_refills_are_fresh(seed, number, count, size, data):
    used = data.draw(st.lists(st.integers(0, size - 1), unique=True))
    fresh = refill(seed, number, 1, count, size, used)
    assert len(set(fresh)) == len(fresh) == min(count, size - len(used))
    assert not set(fresh) & set(used)

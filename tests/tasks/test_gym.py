import importlib.util
import sys
import types

import pytest

from rlvr_lite import tasks
from rlvr_lite.errors import UserError


@pytest.fixture
def gym(monkeypatch):
    """A stand-in for reasoning-gym with its two calls that we use."""

    class Dataset:
        def __init__(self, size, seed, largest=50, answered=True):
            if largest < 1:
                raise AssertionError("largest must be positive")
            self.size, self.seed, self.largest, self.answered = size, seed, largest, answered

        def __len__(self):
            return self.size

        def __getitem__(self, index):
            number = (self.seed + 7919 * index) % self.largest
            return {"question": f"Double {number}?", "answer": str(2 * number) if self.answered else None}

    module = types.ModuleType("reasoning_gym")
    module.create_dataset = lambda name, **options: Dataset(**options)
    factory = types.ModuleType("reasoning_gym.factory")
    factory.DATASETS = {"doubling": Dataset}
    monkeypatch.setitem(sys.modules, "reasoning_gym", module)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)


def test_gym_tasks_have_disjoint_nested_splits(gym):
    task = tasks.get("gym:doubling", largest=400)
    parts = [{p.problem for p in task.problems(split)} for split in task.splits]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 400
    assert task.problems("train", 5) == task.problems("train", 9)[:5]
    first = task.problems("test", 1)[0]
    assert int(first.answer) == 2 * int(first.problem.split()[1][:-1])


def test_gym_mistakes(gym):
    with pytest.raises(UserError, match="did you mean 'doubling'"):
        tasks.get("gym:dubling")
    with pytest.raises(UserError, match="refuses its options"):
        tasks.get("gym:doubling", width=3)
    with pytest.raises(UserError, match="largest must be positive"):
        tasks.get("gym:doubling", largest=0)
    with pytest.raises(UserError, match="no single answer"):
        tasks.get("gym:doubling", answered=False)


@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is not None, reason="reasoning-gym is installed")
def test_without_the_extra_the_error_names_it():
    with pytest.raises(UserError, match=r"pip install 'rlvr-lite\[gym\]'"):
        tasks.get("gym:leg_counting")


@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra gym")
def test_the_real_gym():
    task = tasks.get("gym:leg_counting")
    assert len(task.problems("test", 10)) == 10
    assert all(p.answer.isdigit() for p in task.problems("train", 20))

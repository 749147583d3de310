"""Optimizers, schedulers and generators survive a trip through JSON and safetensors, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite.training import _checkpoints as checkpoints
from rlvr_lite.training._codec import read_state, write_state

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
trees = st.recursive(
    leaves,
    lambda t: st.lists(t) | st.lists(t).map(tuple) | st.dictionaries(st.text() | st.integers(), t),
    max_leaves=10,
)


@given(trees)
def test_any_nested_value_comes_back(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("state")
    write_state(folder, "state", value)
    assert repr(read_state(folder, "state")) == repr(value)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_an_optimizer_continues_exactly(tmp_path, kind):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3))
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}

    def steps(optimizer, parameter, count):
        for i in range(count):
            parameter.grad = torch.full_like(parameter, 0.1 * (i + 1))
            optimizer.step()

    first = kind([weight], lr=0.1, **options)
    steps(first, weight, 3)
    write_state(tmp_path, "optimizer", first.state_dict())
    again = torch.nn.Parameter(weight.detach().clone())
    second = kind([again], lr=0.1, **options)
    second.load_state_dict(read_state(tmp_path, "optimizer"))
    steps(first, weight, 2)
    steps(second, again, 2)
    assert torch.equal(weight, again)


def test_generators_continue_exactly(tmp_path):
    write_state(tmp_path, "generators", checkpoints.generator_states())
    drawn = random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
    checkpoints.restore_generators(read_state(tmp_path, "generators"))
    again = random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
    assert drawn[:2] == again[:2]
    assert torch.equal(drawn[2], again[2])


def test_what_needs_a_pickle_is_refused(tmp_path):
    with pytest.raises(TypeError, match="object"):
        write_state(tmp_path, "x", {"a": object()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.float16])
def test_tensors_keep_their_type(tmp_path, dtype):
    value = torch.tensor([[1, 0], [3, 2]]).to(dtype)
    write_state(tmp_path, "t", {"t": value, "view": value[:, 0], "empty": value[:0]})
    back = read_state(tmp_path, "t")
    assert back["t"].dtype == dtype
    assert torch.equal(back["t"], value)
    assert torch.equal(back["view"], value[:, 0])
    assert back["empty"].shape == (0, 2)

"""What is remembered of an operator is what torch itself would say: shape, stride, dtype, and whose memory it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from rlvr_lite.analysis._recall import Recall

aten = torch.ops.aten


def facts(out, arguments):
    """All that the meter and the next operator see of a result."""
    results = out if isinstance(out, list | tuple) else [out]
    return type(out), [
        (
            x.dtype,
            x.shape,
            x.stride(),
            x.storage_offset(),
            x.untyped_storage().nbytes(),
            x.device,
            [x is y for y in arguments],
            [x.untyped_storage()._cdata == y.untyped_storage()._cdata for y in arguments],
        )
        for x in results
    ]


def both(recall, func, make, *rest, **kwargs):
    """Facts from the recall and from torch, each on tensors of its own."""
    mine, torchs = make(), make()
    return facts(recall(func, (*mine, *rest), kwargs), mine), facts(func(*torchs, *rest, **kwargs), torchs)


@pytest.fixture
def mode():
    with FakeTensorMode(allow_non_fake_inputs=True) as entered:
        yield entered


def wide():
    return [torch.empty(6, 4)]


def two():
    return [torch.empty(6, 4), torch.empty(4, dtype=torch.bfloat16)]


def heads():
    return [torch.empty(2, 3, 5, 8) for _ in range(3)]


CASES = [
    (aten.add.Tensor, two, (), {}),
    (aten.mul.Tensor, wide, (2,), {}),
    (aten.mm.default, lambda: [torch.empty(6, 4), torch.empty(4, 3)], (), {}),
    (aten._to_copy.default, wide, (), {"dtype": torch.float64}),
    (aten.view.default, wide, ([3, 8],), {}),
    (aten.slice.Tensor, wide, (0, 2, 5), {}),
    (aten.t.default, wide, (), {}),
    (aten.detach.default, wide, (), {}),
    (aten.expand.default, lambda: [torch.empty(1, 4)], ([7, 4],), {}),
    (aten._unsafe_view.default, wide, ([24],), {}),
    (aten.split.Tensor, wide, (2,), {}),
    (aten.add_.Tensor, two, (), {}),
    (aten.native_layer_norm.default, wide, ([4], None, None, 1e-5), {}),
    (aten._scaled_dot_product_flash_attention_for_cpu.default, heads, (), {}),
    (aten.clone.default, lambda: [torch.empty(6, 4).t()], (), {}),
    (aten.sum.dim_IntList, wide, ([1],), {}),
]


@pytest.mark.parametrize(("func", "make", "rest", "kwargs"), CASES, ids=[str(func) for func, *_ in CASES])
def test_a_result_is_torchs_at_every_call(mode, func, make, rest, kwargs):
    recall = Recall()
    for _ in range(3):
        mine, torchs = both(recall, func, make, *rest, **kwargs)
        assert mine == torchs


def test_from_the_second_time_on_torch_is_not_asked(mode):
    calls = []

    def func(x):
        calls.append(x)
        return aten.relu.default(x)

    recall = Recall()
    for _ in range(3):
        assert isinstance(recall(func, wide(), {}), FakeTensor)
    assert len(calls) == 1


def test_numbers_that_are_equal_but_of_another_type_are_told_apart(mode):
    recall = Recall()
    whole = [torch.empty(3, dtype=torch.long)]
    dtypes = [recall(aten.mul.Tensor, (*whole, by), {}).dtype for by in (1, 1.0, True, 1.0)]
    assert dtypes == [torch.long, torch.float32, torch.long, torch.float32]


def test_an_argument_given_twice_does_not_stand_for_two(mode):
    recall = Recall()
    x, y = torch.empty(3), torch.empty(3)

    def first_or_second(a, b):
        return a if a is b else b.view(3)

    recall(first_or_second, (x, x), {})
    out = recall(first_or_second, (x, y), {})
    assert out.untyped_storage()._cdata == y.untyped_storage()._cdata


def test_an_operator_that_changes_its_argument_is_asked_each_time(mode):
    recall = Recall()
    for _ in range(2):
        x = torch.empty(4)
        recall(aten.resize_.default, (x, [6]), {})
        assert x.shape == (6,)
        other = torch.empty(6)
        recall(aten.set_.source_Tensor, (x, other), {})
        assert x.untyped_storage()._cdata == other.untyped_storage()._cdata


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    order=st.randoms(use_true_random=False),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
)
def test_pointwise_results_have_torchs_strides_whatever_the_layout(shape, order, dtype):
    axes = list(range(len(shape)))
    order.shuffle(axes)
    recall = Recall()
    with FakeTensorMode():
        for _ in range(2):
            mine, torchs = both(
                recall,
                aten.add.Tensor,
                lambda: [torch.empty(shape, dtype=dtype).permute(axes), torch.empty(shape[axes[-1]])],
            )
            assert mine == torchs

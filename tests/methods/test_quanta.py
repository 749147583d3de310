"""QuanTA is a product of matrices on pairs of axes, less the one it started from."""

from __future__ import annotations

import json
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation._strangers import check_stranger
from rlvr_lite.methods import Layout, Linear
from rlvr_lite.methods._axes import axes_of
from rlvr_lite.methods._tensors import TensorConfig, TensorLinear
from tests.methods import cells

#: (out, in) of SmolLM2-135M and Qwen2.5-1.5B: q and o, k and v, gate and up, down.
SHAPES = [(576, 576), (192, 576), (1536, 576), (576, 1536), (1536, 1536), (256, 1536), (8960, 1536), (1536, 8960)]


def layer_of(out: int, inp: int, axes: int, *, moved: float = 0.3) -> TensorLinear:
    """One layer in fp64, its matrices moved away from their start."""
    torch.manual_seed(out + inp + axes)
    layer = TensorLinear(nn.Linear(inp, out), "default", TensorConfig(axes=axes)).double()
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if "quanta_" in name:
                p += moved * torch.randn_like(p)
    return layer


def dense(layer: TensorLinear, *, start: bool = False) -> Tensor:
    """The product ``[total, total]`` by one einsum: letters a, b, .. are the axes of the input, each use makes a new one."""
    axes, letters = layer.axes, iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    first = [next(letters) for _ in axes]
    last, terms, operands = list(first), [], []
    for n in reversed(range(len(axes))):
        for m in reversed(range(n)):
            matrix = getattr(layer, f"quanta_{m}_{n}" + ("_start" if start else ""))["default"]
            after = next(letters), next(letters)
            terms.append("".join((*after, last[m], last[n])))
            operands.append(matrix.detach().reshape(axes[m], axes[n], axes[m], axes[n]))
            last[m], last[n] = after
    return torch.einsum(f"{','.join(terms)}->{''.join(last + first)}", *operands).reshape(prod(axes), prod(axes))


sizes = st.integers(1, 6).flatmap(lambda k: st.tuples(st.just(12 * k), st.integers(1, 12 * k)))


@settings(deadline=None)
@given(sizes, st.booleans(), st.integers(2, 3))
def test_the_update_is_the_cropped_difference_of_two_dense_products(sides, wide, axes):
    large, small = sides
    out, inp = (small, large) if wide else (large, small)
    layer = layer_of(out, inp, axes)
    assert prod(layer.axes) == large
    expected = (dense(layer) - dense(layer, start=True))[:out, :inp]
    x = torch.randn(2, 3, inp, dtype=torch.float64)
    assert torch.allclose(layer.changed(x, "default"), x @ expected.T, atol=1e-9)
    base = layer.base_layer
    assert torch.allclose(layer(x), x @ (base.weight + expected).T + base.bias, atol=1e-9)


def test_four_axes_against_the_dense_product():
    layer = layer_of(24, 36, 4)
    expected = (dense(layer) - dense(layer, start=True))[:24, :36]
    assert torch.allclose(layer.changed(torch.eye(36, dtype=torch.float64), "default").T, expected, atol=1e-9)


@pytest.mark.parametrize(("out", "inp"), [(12, 12), (4, 12), (12, 8)])
def test_gradients_are_those_of_finite_differences(out, inp):
    layer = layer_of(out, inp, 3)
    x = torch.randn(2, inp, dtype=torch.float64, requires_grad=True)
    names = [n for n, p in layer.named_parameters() if "quanta_" in n]
    values = [p.detach().clone().requires_grad_() for n, p in layer.named_parameters() if n in names]

    def said(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(said, (x, *values))


@pytest.mark.parametrize(("out", "inp"), SHAPES)
def test_real_shapes_start_at_zero_with_as_many_numbers_as_written_down(out, inp):
    torch.manual_seed(0)
    layer = TensorLinear(nn.Linear(inp, out), "default", TensorConfig(axes=4))
    x = torch.randn(2, inp)
    assert layer.changed(x, "default").shape == (2, out)
    assert not layer.changed(x, "default").any()
    assert torch.equal(layer(x), layer.base_layer(x))
    trained = {n: tuple(p.shape) for n, p in layer.named_parameters() if p.requires_grad and "quanta_" in n}
    d = axes_of(max(out, inp), 4)
    assert sum(map(prod, trained.values())) == sum((d[m] * d[n]) ** 2 for n in range(4) for m in range(n))
    layout = Layout({"layers.0.x_proj": Linear(out, inp)}, {}, {"layers.0.x_proj.weight": (out, inp)})
    adapter = methods.resolve("quanta", AdapterConfig(targets=("x_proj",)), "tiny")
    written = methods.get("quanta").expected(layout, adapter)
    assert {n.rpartition("x_proj.")[2]: s for n, s in written.items()} == trained


def test_the_start_keeps_the_size_of_a_vector():
    torch.manual_seed(0)
    layer = TensorLinear(nn.Linear(1536, 1536), "default", TensorConfig(axes=4)).double()
    whole = layer.quanta_0_1["default"]
    assert whole.var().item() == pytest.approx(1 / whole.shape[0], rel=0.1)
    assert whole.abs().max() <= (3 / whole.shape[0]) ** 0.5


def test_small_changes_are_not_lost_in_16_bits():
    layer = layer_of(64, 64, 3, moved=1e-4).float()
    x = torch.randn(4, 64)
    exact = layer.changed(x, "default")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer.changed(x, "default").float()
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_an_update_is_of_full_rank():
    layer = layer_of(36, 36, 2)
    assert torch.linalg.matrix_rank(layer.changed(torch.eye(36, dtype=torch.float64), "default")) == 36


def test_a_saved_adapter_holds_both_products_bit_for_bit(tmp_path):
    model = cells.trained("fp32", "quanta")
    methods.save(model, tmp_path / "adapter")
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    mine = {n.replace(".default", ""): t for n, t in model.state_dict().items() if "quanta_" in n}
    assert held.keys() == mine.keys()
    assert all(torch.equal(held[n], mine[n]) for n in held)
    again = methods.load(cells.fresh("fp32"), tmp_path / "adapter")
    assert torch.equal(cells.logits(again), cells.logits(model))


def test_without_our_description_it_is_no_method_of_peft(tmp_path):
    methods.save(cells.attach("fp32", "quanta"), tmp_path / "adapter")
    (tmp_path / "adapter" / "rlvr_lite.json").unlink()
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "RLVR_LITE_QUANTA"
    with pytest.raises(UserError, match="no PEFT method"):
        check_stranger(tmp_path / "adapter", "base")


def test_merging_and_taking_off_again():
    model = cells.trained("fp32", "quanta")
    said, untouched = cells.logits(model), cells.fresh("fp32").state_dict()
    model.merge_adapter()
    assert torch.allclose(cells.logits(model), said, atol=1e-5)
    model.unmerge_adapter()
    weights = methods.detach(model).state_dict()
    assert all(torch.allclose(weights[n], t, atol=1e-6) for n, t in untouched.items())


@pytest.mark.parametrize(
    ("side", "axes", "fix"),
    [(62, 3, "choose axes 2, for 31 x 2"), (20, 4, "choose axes 3, for 5 x 2 x 2"), (61, 2, "leave it out")],
)
def test_sides_that_cannot_be_split_are_refused_with_a_split_that_can(side, axes, fix):
    layout = Layout({"layers.0.x_proj": Linear(side, 16)}, {}, {"layers.0.x_proj.weight": (side, 16)})
    adapter = methods.resolve("quanta", AdapterConfig(targets=("x_proj",), options={"axes": axes}), "tiny")
    with pytest.raises(UserError, match=fix) as caught:
        methods.check_fits("quanta", adapter, layout)
    assert "\n" not in str(caught.value)


@given(st.integers(2, 9000), st.integers(2, 5))
def test_a_split_is_of_the_size_and_none_is_found_only_where_there_is_none(size, count):
    axes = axes_of(size, count)
    primes, rest, divisor = 0, size, 2
    while rest > 1:
        while rest % divisor == 0:
            primes, rest = primes + 1, rest // divisor
        divisor += 1
    assert (axes is None) == (primes < count)
    if axes is not None:
        assert prod(axes) == size
        assert len(axes) == count
        assert min(axes) > 1
        assert list(axes) == sorted(axes, reverse=True)

"""Each method against the formula of its paper, or against PEFT's own where PEFT has it."""

from __future__ import annotations

import dataclasses
import math

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, TinyLoraConfig, get_peft_model
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.config import LINEAR_LAYERS, AdapterConfig
from rlvr_lite.methods import _starts
from rlvr_lite.methods._computed import AnchoredIn, AnchoredOut, NormalizedIn
from rlvr_lite.methods._lora import ADAPTER, lora_layers
from rlvr_lite.methods._reflections import compact_reflections
from tests.methods import cells

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

R8 = AdapterConfig(rank=8, alpha=16)


def peft_model(**options) -> nn.Module:
    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(LINEAR_LAYERS), task_type="CAUSAL_LM", **options)
    return get_peft_model(cells.fresh("fp32"), config)


def gradients(model: nn.Module) -> list[Tensor]:
    model.train()
    model.zero_grad()
    cells.toy_loss(model).backward()
    return [p.grad for p in cells.trainable(model).values()]


def close(left: list[Tensor], right: list[Tensor], relative: float) -> bool:
    assert len(left) == len(right)
    return all((a - b).abs().max() <= relative * b.abs().max() for a, b in zip(left, right, strict=True))


def step(model: nn.Module, count: int = 5, rate: float = 1e-3) -> nn.Module:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(count):
        model.train()
        optimizer.zero_grad()
        cells.toy_loss(model).backward()
        optimizer.step()
    return model


def layers(model: nn.Module) -> list:
    return [layer for _, layer in lora_layers(model)]


# The LoRA family


def test_rslora_is_lora_at_alpha_times_the_root_of_r():
    rslora = cells.attach("fp32", "rslora", R8)
    lora = cells.attach("fp32", "lora", dataclasses.replace(R8, alpha=16 * math.sqrt(8)))
    assert torch.allclose(cells.logits(step(rslora)), cells.logits(step(lora)), atol=1e-6)


def test_rank1_is_lora_of_rank_one():
    rank1 = cells.attach("fp32", "rank1", AdapterConfig(alpha=2))
    lora = cells.attach("fp32", "lora", AdapterConfig(rank=1, alpha=2))
    assert torch.equal(cells.logits(step(rank1)), cells.logits(step(lora)))


@pytest.mark.parametrize("name", ["lora", "rslora", "lora_plus"])
def test_plain_members_start_as_peft_starts_them(name):
    torch.manual_seed(0)
    theirs = peft_model(use_rslora=name == "rslora")
    ours = cells.attach("fp32", name, R8, seed=0)
    assert close(gradients(ours), gradients(theirs), 0)


def test_lora_plus_gives_the_high_rate_to_b_and_to_nothing_else():
    model = cells.attach("fp32", "lora_plus", dataclasses.replace(R8, options={"ratio": 4.0}))
    layer = layers(model)[0]
    layer.lora_magnitude_vector[ADAPTER] = nn.ParameterDict({"weight": nn.Parameter(torch.ones(64))})
    layer.lora_B[ADAPTER].bias = nn.Parameter(torch.zeros(64))
    groups = {g["name"]: g for g in methods.optimizer(model, "lora_plus", 1e-3, 0.1).param_groups}
    assert {n: g["lr"] for n, g in groups.items()} == {"A": 1e-3, "B": 4e-3, "vectors": 1e-3}
    assert {n: g["weight_decay"] for n, g in groups.items()} == {"A": 0.1, "B": 0.1, "vectors": 0.0}
    assert all(p.shape[1] == 8 for p in groups["B"]["params"])
    assert len(groups["A"]["params"]) == len(groups["B"]["params"]) == 14
    assert len(groups["vectors"]["params"]) == 2


@pytest.mark.parametrize("kind", ["lora", "anchored"])
def test_methods_of_one_signature_part_after_one_step(kind):
    same = [n for n in methods.names() if methods.get(n).trains_like == kind and not n.endswith(":residual")]
    assert len(same) > 2
    said = {}
    for name in same:
        model = cells.attach("fp32", name, R8)
        cells.train(model, name, methods.optimizer(model, name, 1e-3), range(1, 2))
        said[name] = cells.logits(model)
    for left in same:
        for right in same:
            assert left == right or not torch.allclose(said[left], said[right], atol=1e-4), (left, right)


# LoRA-FA


def test_lora_fa_leaves_a_as_drawn_whatever_is_switched():
    model = cells.attach("fp32", "lora_fa", R8)
    drawn = [layer.lora_A[ADAPTER].weight.clone() for layer in layers(model)]
    optimizer = methods.optimizer(model, "lora_fa", 1e-2)
    with model.disable_adapter():
        pass
    model.base_model.set_adapter([ADAPTER])
    cells.train(model, "lora_fa", optimizer, range(1, 6))
    assert all(torch.equal(layer.lora_A[ADAPTER].weight, a) for layer, a in zip(layers(model), drawn, strict=True))
    assert not any("lora_A" in n for n in cells.trainable(model))


def test_lora_fa_corrects_the_gradient_of_b_for_a():
    model = cells.attach("fp32", "lora_fa", R8)
    optimizer = methods.optimizer(model, "lora_fa", 1e-2)
    cells.toy_loss(model.train()).backward()
    layer = layers(model)[3]
    a, raw = layer.lora_A[ADAPTER].weight.double(), layer.lora_B[ADAPTER].weight.grad.double()
    optimizer.step()
    expected = raw @ torch.linalg.inv(a @ a.T) / 2.0**2
    assert torch.allclose(layer.lora_B[ADAPTER].weight.grad.double(), expected, rtol=1e-4, atol=1e-9)


def test_lora_fa_corrects_for_an_a_that_was_loaded_later():
    source, early, late = (cells.attach("fp32", "lora_fa", R8, seed=seed) for seed in (1, 2, 3))
    state = methods.trainable_state(source)
    before = methods.optimizer(early, "lora_fa", 1e-2)
    cells.train(early, "lora_fa", before, range(1, 2))
    for model in (early, late):
        methods.load_trainable_state(model, state)
    before.load_state_dict(methods.optimizer(late, "lora_fa", 1e-2).state_dict())
    cells.train(early, "lora_fa", before, range(1, 3))
    cells.train(late, "lora_fa", methods.optimizer(late, "lora_fa", 1e-2), range(1, 3))
    assert torch.equal(cells.logits(early), cells.logits(late))


def test_lora_fa_steps_over_layers_without_a_gradient():
    model = cells.attach("fp32", "lora_fa", R8)
    optimizer = methods.optimizer(model, "lora_fa", 1e-2)
    cells.toy_loss(model.train()).backward()
    idle = layers(model)[0].lora_B[ADAPTER].weight
    idle.grad = None
    optimizer.step()
    assert not idle.any()
    assert layers(model)[1].lora_B[ADAPTER].weight.any()


# Spectral starts, in delta form


@given(st.integers(1, 4), st.integers(4, 9), st.integers(4, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_anchored_pair_is_the_product_less_its_start(r, out, inp, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a0, b0, a, b, x = draw(r, inp), draw(out, r), draw(r, inp), draw(out, r), draw(3, inp)
    inward, outward = AnchoredIn(a0), AnchoredOut(b0)
    assert not (outward.weight @ inward.weight).any()
    with torch.no_grad():
        inward.live.copy_(a)
        outward.live.copy_(b)
    assert torch.allclose(outward(inward(x)), x @ (b @ a - b0 @ a0).T)
    for module in (inward, outward):
        copy = type(module)(torch.zeros_like(module.live))
        copy.load_state_dict(module.state_dict())
        assert torch.allclose(copy.live, module.live)
        assert torch.allclose(copy.anchor, module.anchor)


@pytest.mark.parametrize("name", ["pissa", "milora"])
def test_delta_and_residual_form_are_one_method(name):
    delta, residual = cells.attach("fp32", name, R8), cells.attach("fp32", f"{name}:residual", R8)
    assert torch.allclose(cells.logits(delta), cells.logits(residual), rtol=1e-5, atol=1e-5)
    assert close(gradients(delta), gradients(residual), 2e-5)
    said = cells.logits(step(delta)), cells.logits(step(residual))
    assert torch.allclose(*said, atol=2e-4)


@pytest.mark.parametrize(("name", "start"), [("pissa", "pissa"), ("olora", "olora")])
def test_the_start_and_its_gradients_are_pefts(name, start):
    """Up to the common sign of a singular pair, which no decomposition fixes."""
    ours, theirs = cells.attach("fp32", name, R8), peft_model(init_lora_weights=start)
    gradients(ours), gradients(theirs)
    for mine, his in zip(layers(ours), layers(theirs), strict=True):
        (a, b), (c, d) = ((m.lora_A[ADAPTER], m.lora_B[ADAPTER]) for m in (mine, his))
        sign = (a.live * c.weight).sum(1).sign()
        assert torch.allclose(sign[:, None] * a.live, c.weight, atol=2e-5)
        assert torch.allclose(sign * b.live, d.weight, atol=2e-5)
        assert close([sign[:, None] * a.live.grad, sign * b.live.grad], [c.weight.grad, d.weight.grad], 1e-4)


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-4])
def test_rounding_the_saved_pair_to_bf16_keeps_small_updates(size):
    """The form [B, -B0] [A; A0] would lose an update of 1e-3 entirely."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, 48, generator=generator), torch.randn(64, 8, generator=generator)
    inward, outward = AnchoredIn(a), AnchoredOut(b)
    with torch.no_grad():
        inward.live.add_(size * torch.randn(a.shape, generator=generator))
        outward.live.add_(size * torch.randn(b.shape, generator=generator))
        exact = outward.weight.double() @ inward.weight.double()
        rounded = outward.weight.bfloat16().double() @ inward.weight.bfloat16().double()
    assert (rounded - exact).norm() <= 0.01 * exact.norm()


def test_milora_takes_the_smallest_singular_triplets():
    weight = torch.randn(12, 9)
    a, b = _starts.minor(weight, 3, 2.0)
    s = torch.linalg.svdvals(weight)
    assert torch.allclose(torch.linalg.svdvals(2.0 * b @ a)[:3], s[-3:], atol=1e-5)
    assert torch.allclose(torch.linalg.svdvals(weight - 2.0 * b @ a)[:6], s[:6], atol=1e-5)


@pytest.mark.parametrize(("name", "part"), [("rlpo", slice(8)), ("rlmo", slice(-8, None))])
def test_orthonormal_starts_span_the_singular_directions_of_the_base(name, part):
    model = cells.attach("fp32", name, R8)
    for layer in layers(model):
        a = layer.lora_A[ADAPTER].weight
        vh = torch.linalg.svd(layer.get_base_layer().weight, full_matrices=False).Vh[part]
        assert torch.allclose(a @ a.T, torch.eye(8), atol=1e-5)
        assert torch.allclose(a.T @ a, vh.T @ vh, atol=1e-4)
        assert not layer.lora_B[ADAPTER].weight.any()


def test_geora_keeps_what_is_small_in_w_or_in_its_low_rank_part():
    weight, r, rho = torch.randn(10, 14), 3, 0.2
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    leading = u[:, :r] @ torch.diag(s[:r]) @ vh[:r]
    small = (leading.abs() <= leading.abs().quantile(rho)) | (weight.abs() <= weight.abs().quantile(rho))
    u, s, vh = torch.linalg.svd(weight * small, full_matrices=False)
    a, b = _starts.geometry_aware(weight, r, 2.0, rho)
    assert torch.allclose(b @ a, u[:, :r] @ torch.diag(s[:r]) @ vh[:r], atol=1e-5)
    assert torch.allclose(a @ a.T, torch.diag(s[:r]), atol=1e-5)


@given(st.integers(1, 60), st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_smallest_share_is_the_quantile_mask(size, share, seed):
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = _starts._smallest(values, share)
    assert torch.equal(mask, values.abs() <= values.abs().quantile(share) + 1e-12)


def test_mica_is_pefts_mica_on_an_unquantised_base():
    ours, theirs = cells.attach("fp32", "mica", R8), peft_model(init_lora_weights="mica")
    for mine, his in zip(layers(ours), layers(theirs), strict=True):
        b, d = mine.lora_B[ADAPTER].weight, his.lora_B[ADAPTER].weight
        assert torch.allclose(b @ b.T, d @ d.T, atol=1e-5)
    assert torch.allclose(cells.logits(step(ours)), cells.logits(step(theirs)), atol=1e-4)


def test_lora_xs_moves_only_inside_the_leading_singular_directions():
    model = step(cells.attach("fp32", "lora_xs", R8))
    for layer in layers(model):
        u, s, vh = torch.linalg.svd(layer.get_base_layer().weight, full_matrices=False)
        a, b, core = layer.lora_A[ADAPTER].fixed, layer.lora_B[ADAPTER].fixed, layer.lora_B[ADAPTER].core
        assert core.any()
        assert torch.allclose(layer.get_delta_weight(ADAPTER), 2.0 * b @ core @ a, atol=1e-6)
        assert torch.allclose(b @ a, u[:, :8] @ torch.diag(s[:8]) @ vh[:8], atol=1e-5)
        assert torch.allclose(b.T @ b, torch.eye(8), atol=1e-5)  # the singular values sit in A


@pytest.mark.parametrize("tying", [0.0, 0.5, 1.0])
def test_tinylora_is_pefts_tinylora_on_an_unquantised_base(tying):
    asked = AdapterConfig(rank=2, options={"u": 5, "tying": tying})
    ours = cells.attach("fp32", "tinylora", asked, seed=11)
    config = TinyLoraConfig(
        r=2, u=5, weight_tying=tying, projection_seed=11, target_modules=list(LINEAR_LAYERS), task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(cells.fresh("fp32"), config)
    for mine, his in zip(layers(ours), (m for m in theirs.modules() if hasattr(m, "tinylora_P")), strict=True):
        # A singular pair's common sign is free; the random core between the pairs makes it matter.
        sign = (mine.lora_A[ADAPTER].weight * his.tinylora_A[ADAPTER]).sum(1).sign()
        his.tinylora_A[ADAPTER] = sign[:, None] * his.tinylora_A[ADAPTER]
        his.tinylora_B[ADAPTER] = sign * his.tinylora_B[ADAPTER]
        assert torch.equal(mine.lora_B[ADAPTER].projections, his.tinylora_P[ADAPTER])
    assert close(gradients(ours), gradients(theirs), 1e-4)
    assert torch.allclose(cells.logits(step(ours, rate=0.1)), cells.logits(step(theirs, rate=0.1)), atol=1e-3)


def test_tinylora_leaves_the_singular_values_beside_u_where_the_papers_equation_is_asked_for():
    asked = AdapterConfig(rank=2, options={"u": 5, "values": "left"})
    model = step(cells.attach("fp32", "tinylora", asked), rate=0.1)
    assert methods.identity(model, "tinylora", asked).failures == []
    for layer in layers(model):
        u, s, vh = torch.linalg.svd(layer.get_base_layer().weight, full_matrices=False)
        side = layer.lora_B[ADAPTER]
        core = torch.einsum("i,ijk->jk", side.vector, side.projections)
        sign = (layer.lora_A[ADAPTER].fixed * vh[:2]).sum(1).sign()
        expected = (u[:, :2] * s[:2] * sign) @ core @ (sign[:, None] * vh[:2])
        assert core.any()
        assert torch.allclose(layer.get_delta_weight(ADAPTER), expected, atol=1e-4)


# NoRA


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_nora_uses_columns_of_length_one_and_trains_along_the_sphere(r, inp, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(r, inp, generator=generator, dtype=torch.float64)
    module, x = NormalizedIn(start), torch.randn(4, inp, generator=generator, dtype=torch.float64)
    assert torch.allclose(module.weight.norm(dim=0), torch.ones(inp, dtype=torch.float64))
    module(x).square().sum().backward()
    assert torch.allclose((module.live.grad * start).sum(0), torch.zeros(inp, dtype=torch.float64), atol=1e-9)


def test_nora_normalises_always_or_once_from_either_start():
    for normalize in ("always", "start"):
        for start in ("random", "blocks"):
            asked = dataclasses.replace(R8, options={"normalize": normalize, "start": start})
            model = cells.attach("fp32", "nora", asked)
            assert methods.identity(model, "nora", asked).failures == []
            a = layers(model)[0].lora_A[ADAPTER].weight
            assert torch.allclose(a.norm(dim=0), torch.ones(64))
            assert torch.equal(a[:, :8], torch.eye(8)) == (start == "blocks")
            after = layers(step(model, rate=0.1))[0].lora_A[ADAPTER].weight.norm(dim=0)
            assert torch.allclose(after, torch.ones(64)) == (normalize == "always")


# Orthogonal methods


@given(st.integers(1, 6), st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_compact_form_is_the_product_of_the_reflections(r, inp, seed):
    u = torch.randn(inp, r, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    product = torch.eye(inp, dtype=torch.float64)
    for i in range(r):
        v = u[:, i : i + 1] / u[:, i].norm()
        product = product @ (torch.eye(inp, dtype=torch.float64) - 2 * v @ v.T)
    unit, inverse = compact_reflections(u)
    assert torch.allclose(torch.eye(inp, dtype=torch.float64) - unit @ torch.linalg.inv(inverse) @ unit.T, product)


def test_hra_is_pefts_hra_without_the_dense_product():
    torch.manual_seed(0)
    config = peft.HRAConfig(r=8, target_modules=list(LINEAR_LAYERS), task_type="CAUSAL_LM")
    theirs = get_peft_model(cells.fresh("fp32"), config)
    ours = cells.attach("fp32", "hra", AdapterConfig(rank=8), seed=0)
    assert close(gradients(ours), gradients(theirs), 1e-4)
    assert torch.allclose(cells.logits(step(ours)), cells.logits(step(theirs)), atol=1e-4)

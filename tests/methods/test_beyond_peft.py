"""Methods of PEFT whose layers are our own: the same function where PEFT computes it, and where it does not, the paper's."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.boft.layer import BOFTLayer
from peft.tuners.delora.layer import DeloraLayer, DeloraLinear
from peft.tuners.gralora import layer as gralora
from peft.tuners.shira import layer as shira
from torch import nn

from rlvr_lite import methods
from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from tests.methods import cells

X = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def layer_of(name: str, **options: int | float) -> nn.Module:
    """The first adapted layer of a trained fp32 model, in fp64."""
    model = cells.trained("fp32", name, AdapterConfig(options=options))
    return next(m for n, m in model.named_modules() if n.endswith("layers.0.self_attn.q_proj")).double()


@pytest.mark.parametrize("factors", [1, 2, 3])
def test_boft_is_the_product_of_its_permuted_block_rotations(factors):
    ours = layer_of("boft", factors=factors, block_size=4)
    blocks = ours.in_features // 4
    whole = torch.eye(64, dtype=torch.float64)
    for i, turns in enumerate(ours.boft_R["default"]):
        skew = 0.5 * (turns - turns.mT)
        one = torch.eye(4, dtype=torch.float64)
        block = torch.block_diag(*((one - k) @ torch.linalg.inv(one + k) for k in skew))
        order = ours.block_butterfly_perm(64, blocks // 2**i, 2, factors - 1)
        permuted = BOFTLayer.perm2mat(ours, order).double()
        whole = permuted @ block @ permuted.T @ whole
    assert torch.allclose(whole @ whole.T, torch.eye(64, dtype=torch.float64), atol=1e-12)
    base = ours.base_layer
    expected = (X @ whole @ base.weight.T) * ours.boft_s["default"].squeeze(-1) + base.bias
    assert torch.allclose(ours(X), expected, atol=1e-12)
    mixed = (whole.abs() > 1e-9).sum(1)  # coordinates that one coordinate can reach
    assert mixed.max() <= 4 * 2 ** (factors - 1)
    assert mixed.max() > 4 or factors == 1


def test_gralora_and_shira_compute_what_pefts_layers_do():
    for name, theirs in (("gralora", gralora.Linear), ("shira", shira.Linear)):
        ours = layer_of(name)
        said = ours(X)
        ours.__class__ = theirs
        with torch.sparse.check_sparse_tensor_invariants(False):
            assert torch.allclose(said, ours(X), atol=1e-12), name


def test_the_gradient_of_a_sparse_update_is_the_dense_ones_at_its_entries():
    ours = layer_of("shira")
    x = X.clone().requires_grad_()
    (ours(x) ** 2).sum().backward()
    dense = torch.zeros(64, 64, dtype=torch.float64)
    rows, columns = ours.shira_indices["default"].long()
    dense[rows, columns] = ours.shira_weight["default"].detach()
    dense.requires_grad_()
    plain = X.clone().requires_grad_()
    ((plain @ (ours.base_layer.weight.detach() + dense).T + ours.base_layer.bias.detach()) ** 2).sum().backward()
    assert torch.allclose(x.grad, plain.grad, atol=1e-10)
    assert torch.allclose(ours.shira_weight["default"].grad, dense.grad[rows, columns], atol=1e-10)


def test_small_sparse_updates_reach_a_bf16_policy():
    layer = next(m for n, m in cells.attach("bf16", "shira").named_modules() if n.endswith("q_proj"))
    x = torch.ones(1, 64, dtype=torch.bfloat16)
    changes = []
    for kind in (type(layer), shira.Linear):  # PEFT adds D to W in bf16, where half a unit in the last place is more
        layer.__class__ = kind
        said = []
        for value in (0.0, 2.0**-13):
            layer.shira_weight["default"].data.fill_(value)
            with torch.sparse.check_sparse_tensor_invariants(False):
                said.append(layer(x).double().sum().item())
        changes.append(said[1] - said[0])
    exact = layer.shira_weight["default"].numel() * 2.0**-13
    assert changes[0] == pytest.approx(exact, rel=0.15)
    assert abs(changes[1] - exact) > 0.2 * exact


@pytest.mark.parametrize("base", ["bf16", "nf4"])
def test_deloras_norms_are_those_of_the_weights_it_stands_on(base):
    layer = next(m for m in cells.attach(base, "delora").modules() if isinstance(m, DeloraLayer))
    weight = methods._starts.weight_of(layer.get_base_layer())
    assert layer.delora_w_norm["default"].dtype == torch.float32
    assert torch.allclose(layer.delora_w_norm["default"], weight.norm(dim=0))


def test_delora_holds_in_fp16_while_b_is_zero_where_pefts_layer_overflows():
    layer = next(m for m in cells.attach("fp16", "delora").modules() if isinstance(m, DeloraLayer))
    x = 100 * torch.randn(8, layer.in_features, generator=torch.Generator().manual_seed(0)).half()
    with torch.autocast("cpu", torch.float16):
        assert layer(x).isfinite().all()
        assert not DeloraLinear.forward(layer, x).isfinite().all()


@pytest.mark.parametrize(
    ("name", "adapter", "fix"),
    [
        ("gralora", AdapterConfig(rank=6, options={"k": 4}), "divide the rank"),
        ("gralora", AdapterConfig(rank=9, options={"k": 3}), "divide model.layers"),
        ("boft", AdapterConfig(options={"block_size": 3}), "even"),
        ("boft", AdapterConfig(options={"factors": 8}), "fewer factors"),
        ("shira", AdapterConfig(rank=1000), "rank"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name, adapter, fix):
    with pytest.raises(UserError, match=fix):
        cells.attach("fp32", name, adapter)


def test_only_the_papers_methods_cite_it_for_a_rate():
    for name in methods.names():
        method = methods.get(name)
        source = method.learning_rates["paper"].source
        assert not source.startswith("arXiv 2512.23165 trains") or method.paper_row is not None, name

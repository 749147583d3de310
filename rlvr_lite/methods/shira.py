"""SHiRA: a few entries of every weight, drawn at random, are trained, as many as LoRA has numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, as_own, attach_config, per_target
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import ShiraConfig
    from peft.tuners.shira import layer
    from peft.tuners.shira.mask_functions import random_mask

    from rlvr_lite.methods._sparse import SparseLinear, draw_places, sparse_layers

    config = ShiraConfig(r=build.rank, random_seed=build.seed, target_modules=build.targets, task_type="CAUSAL_LM")
    config.mask_fn = None  # it makes a dense mask for every layer, and none on the meta device
    attached = attach_config(model, config)
    as_own(attached, layer.Linear, SparseLinear)
    drawn: dict[tuple[int, int], Tensor] = {}  # one seed, so weights of one shape have the same entries
    for _, module in sparse_layers(attached):
        shape, values = (module.out_features, module.in_features), module.shira_weight[ADAPTER]
        if shape not in drawn:
            drawn[shape] = draw_places(*shape, values.numel(), build.seed, values.device)
        module.keep(drawn[shape])
    config.mask_fn = random_mask  # what another reads from the saved seed
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(layout, adapter, lambda out, inp: {f"shira_weight.{ADAPTER}": (r * (out + inp),)})


def _state(model: nn.Module) -> dict[str, Tensor]:
    from rlvr_lite.methods._sparse import sparse_layers

    return {name: layer.places.cpu() for name, layer in sparse_layers(model)}


def _load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    from rlvr_lite.methods._sparse import sparse_layers

    for name, layer in sparse_layers(model):
        layer.keep(state[name].to(layer.places.device))


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Row and column, 4 bytes each, of every trained entry, which weights of one shape share."""
    return 2 * 4 * r * sum(out + inp for out, inp in {(t.out, t.inp) for t in targets})


register(
    Method(
        name="shira",
        family="structural",
        summary="r (in + out) entries of every weight, drawn at random: a sparse update of full rank",
        paper="Bhardwaj et al., Sparse High Rank Adapters",
        arxiv="2406.13175",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as lora"),
        uses=frozenset({"rank", "targets"}),
        rank_limit=lambda out, inp: out * inp // (out + inp),
        layer="rlvr_lite.SparseLinear",
        cost=(1.83, 3.5),
        memory={
            "nf4": (24.14, 11.17, 1.37, 1.16, 10.9),
            "bf16": (24.14, 11.17, 1.37, 1.16, 10.9),
            "fp32": (32.56, 22.47, 6.28, 2.24, 21.3),
        },
        state=_state,
        load_state=_load_state,
        frozen=_frozen,
    )
)

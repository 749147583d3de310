"""OFT: the input of every layer is rotated, block by block, before the frozen weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import OFTConfig

    config = OFTConfig(
        r=0,
        oft_block_size=_block_size(build.layout, build.adapter),
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    return attach_config(model, config)


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    size = _block_size(layout, adapter)
    return per_target(
        layout, adapter, lambda out, inp: {f"oft_R.{ADAPTER}.weight": (inp // size, size * (size - 1) // 2)}
    )


def _block_size(layout: Layout, adapter: AdapterConfig) -> int:
    """The block size asked for; PEFT would silently take another where it does not divide the input."""
    assert adapter.targets is not None
    size = int(adapter.options["block_size"])
    for name, layer in layout.targets(adapter.targets).items():
        if size < 2 or layer.inp % size:
            raise UserError(f"block_size {size} of oft must divide the {layer.inp} inputs of {name}: choose another")
    return size


register(
    Method(
        name="oft",
        family="orthogonal",
        summary="the input rotated in blocks by trained orthogonal matrices (Cayley, Neumann series)",
        paper="Qiu et al., OFT; OFTv2",
        arxiv="2306.07280",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as lora"),
        uses=frozenset({"targets"}),
        options={"block_size": 32},
        layer="oft.Linear",
    )
)

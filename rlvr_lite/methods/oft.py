"""OFT: the input of every layer is rotated, block by block, before the frozen weight."""

from __future__ import annotations

import functools
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, attach_config, block_size, per_target, swapped
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _size(layout: Layout, adapter: AdapterConfig) -> int:
    """PEFT would silently take another size where this one does not divide the input."""
    return block_size("oft", layout, adapter, lambda layer: (layer.inp,), most=32)


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import OFTConfig

    config = OFTConfig(
        r=0,
        oft_block_size=_size(build.layout, build.adapter),
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    if find_spec("peft.tuners.oft.bnb") is None:
        return attach_config(model, config)
    from peft.tuners.oft import bnb

    layer = functools.partial(bnb.Linear4bit, config=config)  # PEFT before 0.21 forgets to hand it on
    with swapped(bnb, "Linear4bit", layer):
        return attach_config(model, config)


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    size = _size(layout, adapter)
    return per_target(
        layout, adapter, lambda out, inp: {f"oft_R.{ADAPTER}.weight": (inp // size, size * (size - 1) // 2)}
    )


def _block(targets: list[Linear], config: AdapterConfig) -> int:
    return int(config.options["block_size"]) or math.gcd(32, *(t.inp for t in targets))


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Row and column numbers (8 bytes each) of what lies above the diagonal of the blocks, in every layer."""
    block = _block(targets, config)
    return len(targets) * 2 * 8 * (block * (block - 1) // 2)


def _kept(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The rotations."""
    return size * _block(targets, config) * sum(t.inp for t in targets)


register(
    Method(
        name="oft",
        family="orthogonal",
        summary="the input rotated in blocks by trained orthogonal matrices (block_size 0: 32, or less to fit)",
        paper="Qiu et al., OFT; OFTv2",
        arxiv="2306.07280",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as lora"),
        uses=frozenset({"targets"}),
        options={"block_size": 0},
        allowed={"block_size": (0, math.inf)},
        layer="oft.Linear",
        cost=(1.02, 1.07),
        memory={
            "nf4": (37.62, 15.67, 0.0, 0.05, 15.2),
            "bf16": (38.17, 21.64, 0.76, 0.04, 15.2),
            "fp32": (33.21, 24.18, 0.0, 0.24, 15.4),
        },
        frozen=_frozen,
        kept=_kept,
    )
)

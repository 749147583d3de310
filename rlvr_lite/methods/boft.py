"""BOFT: the input is rotated by a product of sparse rotations, which together reach further than the blocks of OFT."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target, swapped
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import BOFTConfig
    from peft.tuners.boft import model as theirs

    from rlvr_lite.methods._butterfly import ButterflyLinear

    config = BOFTConfig(
        boft_block_size=_size(build.layout, build.adapter),
        boft_n_butterfly_factor=int(build.adapter.options["factors"]),
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    # PEFT's own layer drops all factors but one where it cannot compile for a GPU, and holds [in, in] permutations.
    with swapped(theirs, "Linear", ButterflyLinear):
        return attach_config(model, config)


def _size(layout: Layout, adapter: AdapterConfig) -> int:
    """The option ``block_size``, or if it is 0 the largest power of two up to 8 that every input has room for."""
    assert adapter.targets is not None
    asked, halves = int(adapter.options["block_size"]), 2 ** (int(adapter.options["factors"]) - 1)
    layers = layout.targets(adapter.targets)
    size = asked or math.gcd(8 * halves, *(layer.inp for layer in layers.values())) // halves
    for full, layer in layers.items():
        if size < 2 or size % 2 or layer.inp % (size * halves):
            raise UserError(
                f"block_size {size} of boft must be even and times {halves} divide the input of {full} ({layer.inp}): "
                "choose another, or fewer factors"
            )
    return size


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    b, m = _size(layout, adapter), int(adapter.options["factors"])
    return per_target(
        layout,
        adapter,
        lambda out, inp: {f"boft_R.{ADAPTER}": (m, inp // b, b, b), f"boft_s.{ADAPTER}": (out, 1)},
    )


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Both directions of every permutation."""
    return 2 * 8 * int(config.options["factors"]) * sum(t.inp for t in targets)


register(
    Method(
        name="boft",
        family="orthogonal",
        summary="the input rotated by a product of block rotations (options factors and block_size), the output scaled",
        paper="Liu et al., BOFT (ICLR 2024)",
        arxiv="2311.06243",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as oft"),
        uses=frozenset({"targets"}),
        options={"block_size": 0, "factors": 2},
        allowed={"block_size": (0, math.inf), "factors": (1, 8)},
        layer="rlvr_lite.ButterflyLinear",
        cost=(1.72, 3.11),
        memory={
            "nf4": (60.09, 25.12, 6.37, 0.02, 16.2),
            "bf16": (60.09, 25.12, 6.37, 0.02, 16.2),
            "fp32": (96.63, 42.27, 6.99, 0.0, 24.0),
        },
        frozen=_frozen,
    )
)

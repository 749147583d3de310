"""QuanTA: the larger side of a layer is a tensor of N axes, and a trained matrix acts on every pair of them in turn.

The released code has the same matrices, order and start. It takes one list of axes for all layers (16-8-8-4 on sides of
4096, where the fewest numbers are 8-8-8-8) and pads or crops where their product is not the side; here every layer has axes
of its own, whose product is its larger side, and only the smaller side is padded or cropped. It subtracts the start from W in
W's own type; here W is left whole and the start subtracted beside it. Its dropout is 0 in its scripts, and not built here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods._axes import axes_of, numbers, pairs
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, attach_config, per_target
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    from rlvr_lite.methods._tensors import TensorConfig

    axes = int(build.adapter.options["axes"])
    return attach_config(model, TensorConfig(axes=axes, target_modules=build.targets, task_type="CAUSAL_LM"))


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    count = int(adapter.options["axes"])
    assert adapter.targets is not None
    for full, layer in layout.targets(adapter.targets).items():
        if axes_of(max(layer.sides), count) is None:
            raise UserError(_refusal(full, layer, count))

    def shapes(out: int, inp: int) -> Shapes:
        axes = axes_of(max(out, inp), count)
        assert axes is not None
        return {f"quanta_{m}_{n}.{ADAPTER}": (axes[m] * axes[n],) * 2 for m, n in pairs(count)}

    return per_target(layout, adapter, shapes)


def _refusal(full: str, layer: Linear, count: int) -> str:
    from sympy import factorint

    side = max(layer.sides)
    primes = sorted(factorint(side, multiple=True), reverse=True)
    said = f"axes {count} of quanta cannot split the larger side of {full} ({layer.out} x {layer.inp})"
    if len(primes) < 2:
        return f"{said}, as {side} is prime: leave it out of the targets"
    return f"{said}: choose axes {len(primes)}, for {' x '.join(map(str, primes))}, or fewer"


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The starts."""
    count = int(config.options["axes"])
    return 4 * sum(numbers(axes) for t in targets if (axes := axes_of(max(t.sides), count)) is not None)


register(
    Method(
        name="quanta",
        family="structural",
        summary="a matrix on every pair of the axes into which a side is split (option axes), less its start: full rank",
        paper="Chen et al., QuanTA (NeurIPS 2024)",
        arxiv="2406.00132",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            2e-3,
            "not measured: as lora",
            paper=1e-4,
            paper_source="scripts of arXiv 2406.00132 for supervised training: 1e-4 on DROP, 5e-5 on commonsense",
        ),
        uses=frozenset({"targets"}),
        options={"axes": 4},
        allowed={"axes": (2, 8)},
        layer="rlvr_lite.TensorLinear",
        cost=(4.35, 2.69),
        memory={
            "nf4": (98.1, 96.37, 55.83, 0.34, 23.2),
            "bf16": (98.1, 96.37, 55.83, 0.34, 23.2),
            "fp32": (183.2, 176.6, 101.05, 0.61, 36.6),
        },
        frozen=_frozen,
    )
)

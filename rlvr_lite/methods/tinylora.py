"""TinyLoRA: a vector of u numbers per layer, or per group of layers, steers a core between frozen singular factors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, PREFIX, build_lora
from rlvr_lite.methods._memory import both_bytes, factor_bytes
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _groups(layers: int, tying: float) -> list[int]:
    """The group of each layer in model order, as in PEFT: 0 gives every layer its own, 1 gives all the same.

    >>> _groups(4, 0.0), _groups(4, 0.5), _groups(4, 1.0)
    ([0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0])
    """
    count = max(1, round(layers * (1 - tying)))
    size = max(1, layers // count)
    return [min(i // size, count - 1) for i in range(layers)]


def _build(model: nn.Module, build: Build) -> nn.Module:
    """``W + U S R V^T`` with ``R = sum_i v_i P_i`` (arXiv 2602.04118), v = 0 at first.

    The paper leaves the law of P open; it is ``N(0, 1/r)`` from ``seed + layer``, as in PEFT. PEFT also gives either side
    ``sqrt(S)``, which is the default here; ``values="left"`` leaves S beside U, as the paper writes it.
    """
    import torch
    from torch import nn

    from rlvr_lite.methods._computed import FixedLinear, VectorOut
    from rlvr_lite.methods._spectral import starts
    from rlvr_lite.methods._starts import left_singular_factors, principal

    options, r = build.adapter.options, build.rank
    factors = principal if options["values"] == "split" else left_singular_factors
    attached = build_lora(model, build.with_size(r, r))
    layers = list(starts(attached, build.with_size(r, r), factors))
    vectors: dict[int, nn.Parameter] = {}
    for index, group in enumerate(_groups(len(layers), float(options["tying"]))):
        layer, (a, b) = layers[index]
        generator = torch.Generator().manual_seed(build.seed + index)
        projections = torch.normal(0.0, r**-0.5, (int(options["u"]), r, r), generator=generator).to(a.device)
        vector = vectors.setdefault(group, nn.Parameter(a.new_zeros(int(options["u"]))))
        layer.lora_A[ADAPTER], layer.lora_B[ADAPTER] = FixedLinear(a), VectorOut(b, projections, vector)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    assert adapter.targets is not None
    names = list(layout.targets(adapter.targets))
    groups = _groups(len(names), float(adapter.options["tying"]))
    first = dict(zip(reversed(groups), reversed(names), strict=True))
    return {f"{PREFIX}{first[g]}.lora_B.{ADAPTER}.vector": (int(adapter.options["u"]),) for g in sorted(first)}


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The singular factors, and P of every layer."""
    return both_bytes(targets, r, config, size) + 4 * len(targets) * int(config.options["u"]) * r * r


register(
    Method(
        name="tinylora",
        family="extreme",
        summary="u trained numbers a layer, spread by fixed random matrices between frozen singular factors of W",
        paper="Morris et al., TinyLoRA",
        arxiv="2602.04118",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            3e-2,
            "not measured: as vector methods, between ln_tuning and vera",
            paper=1e-3,
            paper_source="arXiv 2602.04118 sweeps it for every size; 1e-3 is the middle of the usual sweep of vector methods",
        ),
        rank={"tiny": 2, "small": 2, "paper": 2},
        uses=frozenset({"rank", "targets"}),
        options={"u": 64, "tying": 0.0, "values": "split"},
        allowed={"u": (1, math.inf), "tying": (0, 1), "values": ("split", "left")},
        layer="lora.Linear(FixedLinear, VectorOut)",
        own_state=True,
        cost=(0.96, 1.01),
        memory={
            "nf4": (28.49, 13.71, 0.0, 0.01, 9.7),
            "bf16": (28.49, 13.71, 0.0, 0.01, 9.7),
            "fp32": (26.09, 23.7, 0.0, 0.07, 18.1),
        },
        frozen=_frozen,
        kept=factor_bytes,
    )
)

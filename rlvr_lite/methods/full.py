"""Full fine-tuning: every weight of the base is trained, in fp32."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    """Weights in fp32, computing in the dtype the base came in: small updates would vanish in 16 bits."""
    import torch

    dtype = next(model.parameters()).dtype
    model.float().requires_grad_(True)
    if dtype != torch.float32:
        kind = type(model)

        @functools.wraps(kind.forward)
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            with torch.autocast(self.device.type, dtype=dtype):
                return kind.forward(self, *args, **kwargs)

        # A class keeps copies of the model whole, where a replaced method would still point to the original.
        model.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return model


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    return dict(layout.tensors)


register(
    Method(
        name="full",
        family="baseline",
        summary="every weight of the base, with fp32 master weights",
        paper="baseline of arXiv 2512.23165",
        arxiv="",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            3e-4,
            "measured: avg@8 .76, out of distribution .42 at 3e-4; .88 but .30 at 1e-3",
            paper=1e-6,
            paper_source="recipe of arXiv 2512.23165 (dapo_full), a tenth of the adapters' rate",
        ),
        uses=frozenset(),
        unsupported={"nf4": "4-bit weights cannot be trained; load the base in bf16 or fp32, or choose an adapter"},
        mergeable=False,
        writes_base=True,
        paper_row=0,
        cost=(1.13, 0.82),
        memory={"bf16": (0.41, 13.85, 23.35, 1.4, 7.7), "fp32": (6.37, 25.54, 24.41, 0.09, 15.7)},
        trains_base=True,
        unsupported_unsloth=dict.fromkeys(
            ("bf16", "fp16"),
            "its weights are kept in fp32, and Unsloth's decoding multiplies 16-bit activations with them as they are: "
            "take backend transformers, or precision fp32",
        ),
    )
)

"""DeLoRA: every rank-one part of a LoRA has length one; a trained bound says how long the update is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._lora import ADAPTER, as_own, attach_config, per_target, swapped
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn


def _build(model: nn.Module, build: Build) -> nn.Module:
    import torch
    from peft import DeloraConfig
    from peft.tuners.delora.layer import DeloraLayer, DeloraLinear
    from torch import nn

    from rlvr_lite.methods._normalised import NormalisedLinear
    from rlvr_lite.methods._starts import weight_of

    theirs = DeloraLayer.reset_delora_parameters

    def reset(self: Any, *args: Any) -> None:
        """PEFT's without its norms, which it takes of packed 4-bit weights, and in 16 bits of 16-bit ones."""
        base = self.get_base_layer()
        self.base_layer = nn.Linear(self.in_features, 1, bias=False, device="meta")
        theirs(self, *args)
        self.base_layer = base
        self.delora_w_norm[args[0]] = torch.ones(self.in_features, device=base.weight.device)

    config = DeloraConfig(
        r=build.rank,
        delora_lambda=build.adapter.options["delora_lambda"],
        target_modules=build.targets,
        task_type="CAUSAL_LM",
    )
    with swapped(DeloraLayer, "reset_delora_parameters", reset):
        attached = attach_config(model, config)
    for layer in attached.modules():
        if isinstance(layer, DeloraLayer):
            held = layer.delora_w_norm[ADAPTER].float()
            layer.delora_w_norm[ADAPTER] = held if held.is_meta else weight_of(layer.get_base_layer()).norm(dim=0)
    as_own(attached, DeloraLinear, NormalisedLinear)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    r = adapter.rank
    assert r is not None
    return per_target(
        layout,
        adapter,
        lambda out, inp: {
            f"delora_A.{ADAPTER}": (r, inp),
            f"delora_B.{ADAPTER}": (out, r),
            f"delora_lambda.{ADAPTER}": (1,),
        },
    )


def _frozen(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """The norms of the base's columns."""
    return 4 * sum(t.inp for t in targets)


register(
    Method(
        name="delora",
        family="structural",
        summary="LoRA whose r parts are normalised; a trained number a layer bounds the update (delora_lambda: its start)",
        paper="Bini et al., DeLoRA (ICLR 2025)",
        arxiv="2503.18225",
        build=_build,
        expected=_expected,
        learning_rates=rates(2e-3, "not measured: as lora"),
        uses=frozenset({"rank", "targets"}),
        options={"delora_lambda": 15.0},
        allowed={"delora_lambda": (1e-6, 1e6)},
        layer="rlvr_lite.NormalisedLinear",
        cost=(1.07, 1.25),
        memory={
            "nf4": (24.42, 11.64, 0.0, 0.31, 9.0),
            "bf16": (23.93, 11.93, 0.0, 0.05, 9.0),
            "fp32": (35.04, 23.96, 0.0, 0.14, 19.9),
        },
        frozen=_frozen,
    )
)

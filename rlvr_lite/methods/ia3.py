"""(IA)^3: one trained scale for every output of a layer, or every input of the last layer of an MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods._layout import Layout, matches
from rlvr_lite.methods._lora import ADAPTER, PREFIX, attach_config
from rlvr_lite.methods._rates import rates
from rlvr_lite.methods._registry import register
from rlvr_lite.methods._spec import Build, Method, Shapes

if TYPE_CHECKING:
    from torch import nn

_MIXERS = ("attn", "attention", "mixer", "conv", "mamba", "ssm", "delta")


def _feedforward(layout: Layout) -> set[str]:
    """The last layer of every MLP, which is scaled at its input as in the paper (§3.3).

    Layers side by side in a module that mixes no positions, of which the last returns to the width that the first took.
    """
    groups: dict[str, list[str]] = {}
    for full in layout.linears:
        parent = full.rpartition(".")[0]
        if not any(word in parent.rpartition(".")[2].lower() for word in _MIXERS):
            groups.setdefault(parent, []).append(full)
    ends = {group[0]: group[-1] for group in groups.values() if len(group) > 1}
    return {last for first, last in ends.items() if layout.linears[last].out == layout.linears[first].inp}


def _build(model: nn.Module, build: Build) -> nn.Module:
    from peft import IA3Config
    from peft.tuners.ia3.layer import IA3Layer

    from rlvr_lite.methods._dtype import keep_dtype

    # PEFT matches ends of names, and some architectures call a layer of attention as one of the MLP.
    last, targets = _feedforward(build.layout), build.layout.targets(build.targets)
    ends = {name: {full in last for full in targets if matches(full, name)} for name in build.targets}
    names = list(targets) if any(len(kinds) > 1 for kinds in ends.values()) else build.targets
    feedforward = [name for name in names if any(full in last for full in targets if matches(full, name))]
    config = IA3Config(target_modules=names, feedforward_modules=feedforward, task_type="CAUSAL_LM")
    attached = attach_config(model, config)
    keep_dtype(attached, IA3Layer)
    return attached


def _expected(layout: Layout, adapter: AdapterConfig) -> Shapes:
    assert adapter.targets is not None
    last = _feedforward(layout)
    return {
        f"{PREFIX}{full}.ia3_l.{ADAPTER}": (1, layer.inp) if full in last else (layer.out, 1)
        for full, layer in layout.targets(adapter.targets).items()
    }


register(
    Method(
        name="ia3",
        family="extreme",
        summary="one trained scale for every output (input of the last layer of an MLP)",
        paper="Liu et al., (IA)^3",
        arxiv="2205.05638",
        build=_build,
        expected=_expected,
        learning_rates=rates(
            1e-1,
            "measured on k, v and down_proj: avg@8 .29 at 1e-1, .28 at 1e-2",
            paper=3e-3,
            paper_source="3e-3 in arXiv 2205.05638, supervised",
        ),
        uses=frozenset({"targets"}),
        layer="ia3.Linear",
        paper_row=12,
        cost=(0.9, 0.85),
        memory={
            "nf4": (33.93, 28.85, 6.69, 0.0, 16.2),
            "bf16": (27.12, 25.31, 4.06, 0.0, 13.2),
            "fp32": (44.1, 34.43, 0.0, 0.0, 15.4),
        },
    )
)

"""What a method is: a frozen record of how it is built, what it trains, what it costs and where that is written.

Nothing here imports torch, so methods can be listed in a few milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rlvr_lite.analysis.memory import Cost
from rlvr_lite.config import AdapterConfig, Option
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._memory import PLAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Build", "Bytes", "LearningRate", "Method", "Shapes", "no_bytes"]

Family = Literal["baseline", "scaling", "optimizer", "structural", "spectral", "extreme", "orthogonal"]
Precision = Literal["fp32", "bf16", "fp16", "nf4"]

#: Names of trainable tensors and their shapes.
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class LearningRate:
    """A learning rate and where it comes from.

    Attributes:
        value: the rate.
        source: a paper, or what was measured with it.
    """

    value: float
    source: str


@dataclass(frozen=True)
class Build:
    """What an adapter is built from, besides the base.

    Attributes:
        adapter: size and place, every default filled in.
        layout: shapes of the base.
        total_steps: optimizer steps of the whole run, for methods with a schedule.
        seed: of the random part of the start.
        blank: whether the start may be skipped because weights will be loaded over it.
    """

    adapter: AdapterConfig
    layout: Layout
    total_steps: int
    seed: int
    blank: bool = False

    def with_size(self, rank: int, alpha: float) -> Build:
        """The same with another rank and alpha, for what a method builds inside."""
        return dataclasses.replace(self, adapter=dataclasses.replace(self.adapter, rank=rank, alpha=alpha))

    @property
    def rank(self) -> int:
        """The adapter's rank."""
        assert self.adapter.rank is not None
        return self.adapter.rank

    @property
    def alpha(self) -> float:
        """The adapter's alpha."""
        assert self.adapter.alpha is not None
        return self.adapter.alpha

    @property
    def targets(self) -> list[str]:
        """Names of the adapted linear layers, as PEFT's ``target_modules``."""
        assert self.adapter.targets is not None
        return list(self.adapter.targets)


#: ``f(targets, r, config, size)``, with the bytes of a number in a product.
Bytes = Callable[[list[Linear], int, AdapterConfig, int], int]


def no_bytes(targets: list[Linear], r: int, config: AdapterConfig, size: int) -> int:
    """Nothing that is kept in memory."""
    return 0


def _no_penalty(model: nn.Module) -> Tensor | None:
    return None


def _nothing_after_backward(model: nn.Module, step: int) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Method:
    """One adapter method.

    Attributes:
        name: by which it is asked for.
        family: group it belongs to in the comparison.
        summary: what it does, one line.
        paper: authors, title or venue of its definition.
        arxiv: identifier of that paper; empty if there is none.
        build: puts the adapter on a frozen base and returns the model to train.
        expected: the trainable tensors it must have, from the shapes of the base alone.
        learning_rates: default learning rate by scale of the base (``tiny``, ``small``, ``paper``), with its source.
        rank: default rank by scale; ``None`` takes the scale's own default. Ignored where ``uses`` lacks ``rank``.
        alpha: default alpha by scale; ``None`` takes the scale's own default.
        uses: which of ``rank``, ``alpha`` and ``targets`` it looks at; the others are refused.
        options: the further options it knows, with their defaults.
        allowed: for each of them the smallest and the largest number, or the words it may be.
        fixed_rank: the rank of a method that leaves no choice.
        rank_limit: largest rank a layer of ``(out, inp)`` has room for.
        scale: the factor on the update as a function of alpha and r; ``None`` if it has none.
        scale_formula: the same in words.
        unsupported: precisions of the base it cannot sit on, with the reason.
        mergeable: whether its update can be folded into unquantised weights.
        trains_like: methods of one label here have the same trainable tensors and differ in start, scale or optimizer;
            empty means that no other method has the same.
        layer: the module that carries the adapter, as the identity proof describes it; may depend on the options.
        optimizer: ``f(model, learning_rate, weight_decay, eight_bit)``; ``None`` takes AdamW with decay on matrices only.
        penalty: ``f(model)``, a scalar added to the loss, or ``None``.
        after_backward: ``f(model, step)``, called between ``optimizer.step`` and ``zero_grad``.
        state: tensors beyond parameters and buffers that an exact resume needs.
        load_state: puts them back.
        budget: ``f(model)``: ranks in use, the target, and whether the schedule is over (AdaLoRA).
        after_load: ``f(model)``, called when tensors were loaded into the model.
        own_state: whether PEFT's file cannot hold all that training needs, so that the exact state is saved beside it.
        writes_base: whether training changes the base itself, so that it cannot be handed on.
        trains_base: whether it is the base's own weights that are trained, so that no frozen base is left beside them.
        paper_row: its place in the table of the comparison that the package repeats; ``None`` if it is not in it.
        cost: CPU time of forward+backward, and of sampling, beside LoRA's, printed by ``python -m tests.benchmarks.methods
            cost`` (hidden 768, 4 layers, r = 32, fp32, 512 tokens, 32 sampled, one thread, medians of ratios taken in turn).
        memory: activations of a block by what products compute in (``analysis.memory``), printed by ``python -m
            tests.benchmarks.plan calibrate``; what is missing counts as LoRA's.
        frozen: ``f(targets, r, config, size)``, bytes it adds without training them; ``size`` is a product's bytes a number.
        kept: the same, bytes that it casts and computes once for a rollout; ``None`` for its trained numbers, cast.
        unsupported_unsloth: further precisions it cannot sit on where Unsloth loaded the base, with the reason.
    """

    name: str
    family: Family
    summary: str
    paper: str
    arxiv: str
    build: Callable[[nn.Module, Build], nn.Module]
    expected: Callable[[Layout, AdapterConfig], Shapes]
    learning_rates: Mapping[str, LearningRate]
    rank: Mapping[str, int] | None = None
    alpha: Mapping[str, float] | None = None
    uses: frozenset[str] = frozenset({"rank", "alpha", "targets"})
    options: Mapping[str, Option] = field(default_factory=dict)
    allowed: Mapping[str, tuple[float, float] | tuple[str, ...]] = field(default_factory=dict)
    fixed_rank: int | None = None
    rank_limit: Callable[[int, int], int] = min
    scale: Callable[[float, int], float] | None = None
    scale_formula: str = ""
    unsupported: Mapping[Precision, str] = field(default_factory=dict)
    mergeable: bool = True
    trains_like: str = ""
    layer: str | Callable[[AdapterConfig], str] = ""
    optimizer: Callable[[nn.Module, float, float, bool], torch.optim.Optimizer] | None = None
    penalty: Callable[[nn.Module], Tensor | None] = _no_penalty
    after_backward: Callable[[nn.Module, int], None] = _nothing_after_backward
    state: Callable[[nn.Module], dict[str, Tensor]] | None = None
    load_state: Callable[[nn.Module, Mapping[str, Tensor]], None] | None = None
    budget: Callable[[nn.Module], dict[str, int]] | None = None
    after_load: Callable[[nn.Module], None] | None = None
    own_state: bool = False
    writes_base: bool = False
    trains_base: bool = False
    paper_row: int | None = None
    cost: tuple[float, float] | None = None
    memory: Mapping[str, Cost] = field(default_factory=lambda: PLAIN)
    frozen: Bytes = no_bytes
    kept: Bytes | None = None
    unsupported_unsloth: Mapping[Precision, str] = field(default_factory=dict)

    @property
    def plain_lora(self) -> bool:
        """Whether its layers are PEFT's own LoRA, whatever computes A and B."""
        layers = self.layer if isinstance(self.layer, str) else self.layer(AdapterConfig(options=dict(self.options)))
        return layers.startswith("lora.Linear(") and "+" not in layers

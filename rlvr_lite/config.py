"""What a run is asked to do: frozen dataclasses with a JSON round trip that refuses unknown keys and wrong types.

Every field that may be ``None`` is filled by :mod:`rlvr_lite.resolve` from the scale of the base, the method and the task
before a run starts, and the filled configuration is what ``config.json`` holds.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rlvr_lite.errors import UserError
from rlvr_lite.habits import unknown_option
from rlvr_lite.typed import take_types

__all__ = [
    "ALL_LINEAR",
    "LINEAR_LAYERS",
    "MOST_SAMPLES",
    "SAMPLER_GAP_LIMIT",
    "SCALES",
    "AdapterConfig",
    "Optim",
    "Precision",
    "RunConfig",
    "SamplingConfig",
    "Scale",
    "from_json",
    "scale_of",
    "to_json",
]

Precision = Literal["auto", "fp32", "bf16", "fp16", "nf4"]
AdvantageScale = Literal["group", "batch", "none"]
Optim = Literal["auto", "adamw_torch_fused", "paged_adamw_8bit"]
PromptStyle = Literal["bare", "instruct"]
#: Words last: what the command line reads is the first of these that fits.
Option = int | float | bool | str

#: Instead of names: every linear layer of the blocks, whatever the architecture calls them (PEFT's word).
ALL_LINEAR = "all-linear"
#: What these are in Llama, Qwen 2 and most others.
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

#: Nats a token on average between sampler and scorer: bf16 has 0.04, and beyond this the two are different policies.
SAMPLER_GAP_LIMIT = 0.5
#: Prompts of a step, or answers to a problem: far more than anybody draws, and lists of so many are still no burden.
MOST_SAMPLES = 2**16

C = TypeVar("C")


def to_json(config: Any) -> str:
    """A configuration (a dataclass) as indented JSON with its keys in field order."""
    return json.dumps(dataclasses.asdict(config), indent=2, allow_nan=False) + "\n"


def from_json(cls: type[C], text: str) -> C:
    """The inverse of :func:`to_json`.

    Raises:
        UserError: the text is not a JSON object, or names a field that ``cls`` does not have.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"not a {cls.__name__}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"not a {cls.__name__}: expected a JSON object, got {type(values).__name__}")
    return replace_fields(cls(), values)


def replace_fields(config: C, values: Mapping[str, Any]) -> C:
    """``config`` with the named fields replaced; an unknown name offers the nearest known ones."""
    known = {f.name for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise unknown_option("a run" if isinstance(config, RunConfig) else type(config).__name__, str(name), known)
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Size and place of an adapter, in the same words for every method.

    Attributes:
        rank: r of a low-rank method; ``None`` takes the method's default. Refused by methods without a rank.
        alpha: numerator of the scale (``alpha / r`` in LoRA); ``None`` takes the method's default.
        targets: names of the linear layers that are adapted; ``None`` takes ``all-linear``, every one of the blocks.
        options: what only this method knows, such as ``{"ratio": 16}`` of lora_plus.
    """

    rank: int | None = None
    alpha: float | None = None
    targets: tuple[str, ...] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        take_types(self)
        if self.rank is not None and self.rank < 1:
            raise UserError(f"rank must be a whole number of at least 1, got {self.rank!r}")
        if self.alpha is not None and self.alpha <= 0:
            raise UserError(f"alpha must be a positive number, got {self.alpha!r}")
        if self.targets is not None and not self.targets:
            raise UserError("targets must be a list of layer names, such as ('q_proj', 'v_proj')")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How completions are drawn.

    Attributes:
        temperature: divides the logits; 0 means greedy.
        top_p: smallest set of tokens whose probability reaches this is kept; 1 keeps all.
        top_k: number of most likely tokens kept; 0 keeps all.
        max_completion_length: longest completion, in tokens, end token included.
        min_p: tokens at least this fraction as likely as the likeliest are kept; 0 keeps all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_completion_length: int = 512
    min_p: float = 0.0

    def __post_init__(self) -> None:
        take_types(self)
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature must be 0 (greedy) or above, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise UserError(f"top_k must be 0 (all tokens) or above, got {self.top_k}")
        if self.max_completion_length < 1:
            raise UserError(f"max_completion_length must be at least 1, got {self.max_completion_length}")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p must lie in [0, 1], got {self.min_p}")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0


@dataclass(frozen=True)
class Scale:
    """Defaults for bases of one order of size (facts of the tiny and the paper's scale, LoRA r32 alpha 64)."""

    steps: int
    rank: int
    alpha: float
    prompts_per_step: int
    warmup_steps: int
    max_completion_length: int
    prompt_style: PromptStyle
    gradient_checkpointing: bool
    micro_batch: int | None


#: By order of size of the base: below 10M parameters, below 1B, and above.
SCALES: Mapping[str, Scale] = {
    "tiny": Scale(40, 16, 32, 16, 5, 56, "bare", False, None),
    "small": Scale(100, 32, 64, 8, 5, 256, "instruct", True, 16),
    "paper": Scale(1024, 32, 64, 16, 20, 2048, "instruct", True, 4),
}


def scale_of(parameters: int) -> str:
    """The key of :data:`SCALES` for a base of so many parameters.

    >>> [scale_of(n) for n in (460_416, 134_515_008, 1_777_088_000)]
    ['tiny', 'small', 'paper']
    """
    return "tiny" if parameters < 10_000_000 else "small" if parameters < 1_000_000_000 else "paper"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.

    Attributes:
        method: adapter method, a name of ``rlvr_lite.list_methods()``.
        base: ``tiny``, a Hub model id, a well-known name such as ``Qwen2.5-0.5B``, or a local model directory.
        task: a name of ``rlvr_lite.list_tasks()`` or the path of a file with problems.
        task_options: dials of the task, such as ``{"operands": 4}``.
        seed: decides prompts, their order, every sample and the adapter's start.
        steps: optimizer steps.
        learning_rate: ``None`` takes the method's default for the scale of the base.
        warmup_steps: linear warm-up from the first step on; constant afterwards.
        optim: AdamW with fp32 moments, or bitsandbytes' with moments in 8 bits that are paged out under pressure (on a
            GPU); ``auto`` takes fp32 unless only 8 bits fit the card, in a comparison the same for all rows.
        weight_decay: of AdamW, on adapter matrices.
        max_grad_norm: the gradient is clipped to this norm.
        prompts_per_step: prompts drawn for one optimizer step.
        group_size: completions sampled for each prompt (G); at least 2.
        max_completion_length: longest completion in tokens.
        temperature: of the rollouts.
        loss: which policy loss, a name of ``rlvr_lite.grpo.losses.names()``.
        loss_options: what only this loss knows, such as ``{"temperature_neg": 1.05}`` of sapo.
        advantage_scale: what the centred reward is divided by: the group's standard deviation, the batch's, nothing.
        clip_low: lower clip of the probability ratio (epsilon).
        clip_high: upper clip of the probability ratio (DAPO's clip-higher); the bound is 1 more, for every loss.
        kl_coef: weight of the KL term to the frozen base (beta), of which full fine-tuning keeps a copy; 0 leaves it out.
        max_resample: rounds of fresh prompts for groups without variance (dynamic sampling); 0 is off.
        sampler: who samples the rollouts: ``transformers``, our loop over the model that is trained, or ``vllm``, an engine beside
            it with a copy of the weights in the type of the products (extra ``vllm``; never run on a GPU yet).
        rollout_copy: sample from a 16-bit copy of a 4-bit base, of the same weights to the bit, that is freed before scoring;
            ``auto`` makes one on a CPU, and on a GPU where the plan says that it fits beside all completions of a step.
        sampler_correction: ``truncated`` importance weights where what samples rounds otherwise than what is scored, as in
            half precision; ``none`` leaves them out.
        sampler_gap_limit: mean difference of their log-probabilities, in nats a token, above which the run stops.
        rewards: names of the reward functions, summed; in Python also functions in TRL's signature.
        reward_weights: a weight for each of them; ``None`` weighs all by 1.
        rank: r of the adapter.
        alpha: numerator of the adapter's scale.
        targets: linear layers adapted; ``all-linear`` is every one of the blocks, by the architecture's own names.
        method_options: what only this method knows.
        precision: of the base; ``auto`` takes fp32 on a CPU, bf16 or fp16 by the card's capability elsewhere.
        backend: who loads the base.
        revision: of a Hub model: branch, tag or commit.
        prompt_style: ``instruct`` adds the task's instruction and worked examples, ``bare`` only the problem.
        chat_template_kwargs: variables of the chat template, such as ``{"enable_thinking": False}``.
        gradient_checkpointing: recompute activations in the backward pass.
        micro_batch: completions a backward pass; ``None`` takes a whole step at once where that fits.
        eval_problems: held-out problems scored before and after training; ``None`` takes 100, or all where there are
            fewer; 0 leaves evaluation out.
        eval_split: where they come from; what is chosen by their score belongs to ``validation``.
        eval_before: score the base too; a study does that once for all its runs.
        eval_k: samples a problem in that evaluation, besides the greedy one.
        save_steps: a checkpoint every so many steps; 0 keeps only the end and interruptions.
        keep_checkpoints: how many checkpoints are kept.
        max_hours: stop cleanly, saved, after this time; ``None`` has no limit.
        spectrum_steps: every so many steps the metrics say where in the base's spectrum the update lies; 0 is off.
        stop_on_collapse: stop cleanly, saved, when the policy collapses; the reason says what was seen either way.
        report_to: trackers of transformers, such as ``("tensorboard",)``; ``none`` is none of them.
    """

    method: str = "lora"
    base: str = "tiny"
    task: str = "chain-sum"
    task_options: Mapping[str, Option] = field(default_factory=dict)
    seed: int = 0
    steps: int | None = None
    learning_rate: float | None = None
    warmup_steps: int | None = None
    optim: Optim = "auto"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    prompts_per_step: int | None = None
    group_size: int = 8
    max_completion_length: int | None = None
    temperature: float = 1.0
    loss: str = "dapo"
    loss_options: Mapping[str, Option] = field(default_factory=dict)
    advantage_scale: AdvantageScale = "group"
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_coef: float = 0.0
    max_resample: int = 0
    sampler: Literal["transformers", "vllm"] = "transformers"
    rollout_copy: Literal["auto", True, False] = "auto"
    sampler_correction: Literal["truncated", "none"] = "truncated"
    sampler_gap_limit: float = SAMPLER_GAP_LIMIT
    rewards: tuple[str, ...] = ("accuracy",)
    reward_weights: tuple[float, ...] | None = None
    rank: int | None = None
    alpha: float | None = None
    targets: tuple[str, ...] | None = None
    method_options: Mapping[str, Option] = field(default_factory=dict)
    precision: Precision = "auto"
    backend: Literal["auto", "transformers", "unsloth"] = "auto"
    revision: str | None = None
    prompt_style: PromptStyle | None = None
    chat_template_kwargs: Mapping[str, Option] = field(default_factory=dict)
    gradient_checkpointing: bool | None = None
    micro_batch: int | None = None
    eval_problems: int | None = None
    eval_split: Literal["validation", "test", "ood"] = "test"
    eval_before: bool = True
    eval_k: int = 8
    save_steps: int = 0
    keep_checkpoints: int = 2
    max_hours: float | None = None
    spectrum_steps: int = 0
    stop_on_collapse: bool = False
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        take_types(self)
        if self.report_to == ("none",):  # the word of transformers
            object.__setattr__(self, "report_to", ())
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UserError(f"{name} must be at least {least}, got {value}")
        for name in ("prompts_per_step", "group_size", "eval_k"):
            value = getattr(self, name)
            if value is not None and value > MOST_SAMPLES:
                raise UserError(f"{name} must be at most {MOST_SAMPLES:,}, got {value:,}")
        if self.seed >= 2**32:
            raise UserError(f"seed must be less than 2**32, which is all that NumPy takes; got {self.seed}")
        if self.group_size < 2:
            raise UserError(f"group_size must be at least 2 to compare answers with each other, got {self.group_size}")
        for name in ("learning_rate", "max_grad_norm", "max_hours", "temperature"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"{name} must be a positive number, got {value}")
        if not 0 < self.clip_low < 1:
            raise UserError(f"clip_low must lie in (0, 1), got {self.clip_low}")
        if not self.rewards:
            raise UserError("rewards is empty: name at least one, such as 'accuracy'")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise UserError(f"{len(self.rewards)} rewards but {len(self.reward_weights)} reward_weights: give one each")
        _ = self.adapter

    @property
    def adapter(self) -> AdapterConfig:
        """The adapter's part of this configuration."""
        return AdapterConfig(rank=self.rank, alpha=self.alpha, targets=self.targets, options=self.method_options)


_AT_LEAST: Mapping[str, float] = {
    "steps": 1,
    "prompts_per_step": 1,
    "max_completion_length": 1,
    "micro_batch": 1,
    "eval_problems": 0,
    "eval_k": 1,
    "save_steps": 0,
    "spectrum_steps": 0,
    "keep_checkpoints": 1,
    "warmup_steps": 0,
    "max_resample": 0,
    "sampler_gap_limit": 0,
    "clip_high": 0,
    "kl_coef": 0,
    "weight_decay": 0,
    "seed": 0,
}

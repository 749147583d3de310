"""What will run: from what a caller named, a configuration, and facts of the base and the task, to one whole configuration.

What is named (not ``None``) wins over the configuration, and that over the defaults, which are fitted and never refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rlvr_lite import bases, grpo, methods, rewards, sampling
from rlvr_lite.analysis import memory
from rlvr_lite.config import SCALES, AdapterConfig, Optim, Precision, RunConfig, replace_fields, scale_of
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.host import this_card
from rlvr_lite.runs import source_hash, written_as
from rlvr_lite.tasks import StoredTask

if TYPE_CHECKING:
    from rlvr_lite.tasks import Task

__all__ = [
    "BOOKKEEPING",
    "BaseFacts",
    "adapter_fields",
    "check",
    "completions_at_once",
    "eval_problems",
    "fill",
    "is_code",
    "merge",
    "micro_batch",
    "optim_that_fits",
    "planned_step",
    "prompt_tokens",
    "reward_functions",
    "sources",
]

#: What is scored before and after where nobody names a number and the task has as many.
EVAL_PROBLEMS = 100

#: What changes nothing of what a run computes, so that it may differ when a run goes on.
BOOKKEEPING = ("max_hours", "keep_checkpoints", "save_steps", "report_to")

_TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
_PROMPT = 512  # tokens of a long prompt; what is longer is caught by halving a pass that does not fit
_SHARE = 0.85  # of the card, so that context and fragmentation have room


@dataclass(frozen=True)
class BaseFacts:
    """What has to be known of a base before a configuration can be filled.

    Attributes:
        scale: a key of ``config.SCALES``.
        precision: of its weights; ``auto`` while nobody knows.
        layout: names and shapes of its layers, so that a default rank fits them; ``None`` leaves that open.
        shape: its sizes, by which a micro-batch is planned.
        card: bytes of memory of the card it lies on; ``None`` on a CPU.
        itemsize: bytes of an activation.
        positions: of ``grpo.position_limit``.
    """

    scale: str
    precision: Precision = "auto"
    layout: methods.Layout | None = None
    shape: memory.Shape | None = None
    card: int | None = None
    itemsize: int = 4
    positions: tuple[int | None, str] = (None, "")

    @classmethod
    def of(cls, base: bases.Base) -> BaseFacts:
        """Those of a loaded base."""
        layout, positions = methods.Layout.of_model(base.model), grpo.position_limit(base.model.config)
        if base.device.type != "cuda":
            return cls(base.scale, base.precision, layout, positions=positions)
        from torch.cuda import get_device_properties

        card, size = get_device_properties(base.device).total_memory, base.compute_dtype.itemsize
        shape = bases.with_activations(bases.shape_of(base.name, base.model.config.to_dict()), size)
        return cls(base.scale, base.precision, layout, shape, card, size, positions)

    @classmethod
    def ahead(cls, asked: RunConfig) -> BaseFacts:
        """Those of a base before a weight is loaded, as far as its configuration tells them."""
        model = bases.admitted(asked.base, bases.locate(asked.base, asked.revision).config)
        layout = methods.Layout.of_model(model)
        held, positions = layout.in_4_bits() if asked.precision == "nf4" else layout, grpo.position_limit(model.config)
        found = cls(scale_of(held.parameters), asked.precision, held, positions=positions)
        if asked.sampler != "vllm" or (card := this_card()) is None:
            return found
        size = 4 if asked.precision == "fp32" else 2  # whether both fit is said before a weight is loaded
        shape = bases.with_activations(bases.shape_of(asked.base, model.config.to_dict()), size)
        return dataclasses.replace(found, shape=shape, card=card.total_memory, itemsize=size)


# ---- what is asked --------------------------------------------------------------------------------------------------


def merge(named: Mapping[str, Any], config: RunConfig | None = None) -> RunConfig:
    """What the caller named, over the configuration, over the defaults.

    Where another method, task or loss is named than the configuration's, what the configuration says of the old one's options
    and the new one does not use is left out. A well-known base goes by its whole Hub id.

    Args:
        named: fields of ``RunConfig``; ``None`` is not named.
        config: what holds where nothing is named; by default ``RunConfig()``.

    Raises:
        UserError: an unknown field or method, or a value of a wrong type.

    >>> merge({"method": "lora", "steps": None}, RunConfig(method="dora", steps=3)).method
    'lora'
    """
    if config is not None and not isinstance(config, RunConfig):
        raise UserError(
            f"config must be a RunConfig, such as rlvr_lite.recipe('paper-1.5b'), got {type(config).__name__}"
        )
    given = {name: value for name, value in named.items() if value is not None}
    start = config or RunConfig()
    asked = replace_fields(start, given)
    open_: dict[str, Any] = {}
    if config is not None and asked.method != config.method:
        fitting = {"rank": None, "alpha": None, "targets": None, "method_options": {}} | adapter_fields(
            config, asked.method
        )
        open_ |= {name: value for name, value in fitting.items() if name not in given}
    for choice, options in (("task", "task_options"), ("loss", "loss_options")):
        if config is not None and getattr(asked, choice) != getattr(config, choice) and options not in given:
            open_[options] = {}
    if asked.micro_batch is not None and "micro_batch" not in given:  # the configuration's is fitted to a smaller step
        prompts = asked.prompts_per_step or min(scale.prompts_per_step for scale in SCALES.values())
        open_["micro_batch"] = min(asked.micro_batch, prompts * asked.group_size)
    return dataclasses.replace(asked, **open_, base=bases.full_name(asked.base))


def adapter_fields(config: RunConfig, method: str) -> dict[str, Any]:
    """Rank, alpha, targets and options of a configuration as far as they are set and a method uses them.

    An alpha belongs to the rank it was chosen for, and is left out where a method's rank is another by definition.

    Raises:
        UserError: an option that no method has.
    """
    known = methods.get(method)
    every = {option for name in methods.names() for option in methods.get(name).options}
    for option in config.method_options:
        if option not in every:
            raise unknown_name("option of a method", option, every)
    kept = [name for name in ("rank", "alpha", "targets") if name in known.uses]
    fields = {
        name: getattr(config, name) for name in kept if name != "alpha" or known.fixed_rank in (None, config.rank)
    }
    options = {name: value for name, value in config.method_options.items() if name in known.options}
    return {name: value for name, value in fields.items() if value is not None} | (
        {"method_options": options} if options else {}
    )


def check(asked: RunConfig) -> None:
    """Refuse what can be refused before a weight is loaded.

    Raises:
        UserError: an unknown method, loss or tracker, a tracker that is not installed, a method on a base it cannot sit
            on, or an option it does not use.
    """
    methods.get(asked.method)
    if asked.precision != "auto":
        methods.check_precision(asked.method, asked.precision)
    methods.resolve(asked.method, asked.adapter, "tiny")
    sampling.check_engine(asked.sampler, asked.rollout_copy, asked.backend)
    _check_loss(asked)
    if not asked.report_to:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for tracker in asked.report_to:
        if tracker not in INTEGRATION_TO_CALLBACK:
            raise unknown_name("tracker", tracker, INTEGRATION_TO_CALLBACK)
        if tracker in _TRACKERS and not any(map(find_spec, _TRACKERS[tracker])):
            raise UserError(f"report_to {tracker} needs a package that is not installed: pip install {tracker}")


def _check_loss(asked: RunConfig) -> None:
    """Refuse a loss that nobody registered, or an option that it does not have."""
    if asked.loss not in grpo.losses.names():
        raise unknown_name("loss", asked.loss, grpo.losses.names())
    try:
        grpo.losses.get(asked.loss).with_defaults(asked.loss_options)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(str(error)) from None


def reward_functions(given: Any, longest: int = 1) -> tuple[list[Callable[..., Any]], tuple[str, ...]]:
    """Reward functions and their names, from a name or function or several of them.

    Args:
        given: what the caller named.
        longest: longest completion in tokens, for those that look at it.

    Raises:
        UserError: it is neither, or a name that nobody registered.
    """
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",") if name.strip()]
    given = [given] if callable(given) else given
    if not isinstance(given, Sequence):
        raise UserError(f"rewards must be names or functions, got {given!r}")
    functions = [rewards.get(item, longest) if isinstance(item, str) else item for item in given]
    return functions, tuple(i if isinstance(i, str) else getattr(i, "__name__", type(i).__name__) for i in given)


def is_code(task: Task | None) -> bool:
    """Whether a task is a class of the user's, which its name does not say."""
    return task is not None and not isinstance(task, StoredTask) and not type(task).__module__.startswith("rlvr_lite.")


def sources(functions: Mapping[str, Any], task: Task | None) -> dict[str, str]:
    """A hash of the source of what is code of the user's, by name: functions by theirs, a task as ``task NAME``."""
    own = {name: f for name, f in functions.items() if callable(f) and not _module(f).startswith("rlvr_lite.")}
    found = {name: source_hash(f) for name, f in own.items()}
    return found | ({f"task {task.name}": source_hash(type(task))} if task is not None and is_code(task) else {})


def _module(function: Any) -> str:
    return str(getattr(written_as(function), "__module__", ""))


# ---- what runs ------------------------------------------------------------------------------------------------------


def fill(asked: RunConfig, *, facts: BaseFacts, task: Task | None) -> RunConfig:
    """``asked`` with every open field that has a default filled in; filling twice changes nothing.

    Args:
        asked: what was asked.
        facts: of the base.
        task: what it is trained on; without one, lengths are the scale's.

    Raises:
        UserError: an option that the method has not, too large a micro-batch, problems of a task that has none, or sequences
            beyond the base's positions.
    """
    sampling.check_copy(asked.rollout_copy, facts.precision, asked.backend)
    defaults, adapter = SCALES[facts.scale], _adapter(asked, facts)
    longest = defaults.max_completion_length
    values: dict[str, Any] = {
        "steps": defaults.steps,
        "learning_rate": methods.learning_rate(asked.method, facts.scale).value,
        "warmup_steps": defaults.warmup_steps,  # not fitted to steps, which may be raised later
        "prompts_per_step": defaults.prompts_per_step,
        "max_completion_length": longest if task is None else min(longest, task.max_completion_length),
        "prompt_style": defaults.prompt_style,
        "gradient_checkpointing": defaults.gradient_checkpointing,
    }
    open_ = {name: value for name, value in values.items() if getattr(asked, name) is None}
    open_ |= {"max_completion_length": _with_room(dataclasses.replace(asked, **open_), asked, facts, task)}
    filled = dataclasses.replace(
        asked,
        **open_,
        precision=asked.precision if facts.precision == "auto" else facts.precision,
        rank=adapter.rank,
        alpha=adapter.alpha,
        targets=adapter.targets,
        method_options=dict(adapter.options),
        eval_problems=eval_problems(asked, task),
    )
    filled = dataclasses.replace(filled, optim=_optim(filled, facts))  # before the micro-batch: moments take its place
    return dataclasses.replace(filled, micro_batch=_micro_batch(filled, facts))


def _with_room(filled: RunConfig, asked: RunConfig, facts: BaseFacts, task: Task | None) -> int:
    longest, limit = filled.max_completion_length or 1, facts.positions[0] or 0
    prompt = prompt_tokens(filled, task, limit - longest) if limit and task is not None else (1, False)
    return sampling.fitted(facts.positions, *prompt, longest, named=asked.max_completion_length is not None)


def prompt_tokens(config: RunConfig, task: Task | None, spare: int = 0) -> tuple[int, bool]:
    """Tokens of a task's longest prompt, and whether they were counted: see ``sampling.task_prompt``."""
    where, style = bases.EMBEDDED.get(config.base, config.base), config.prompt_style or "instruct"
    return sampling.task_prompt(task, style, where, config.revision, config.chat_template_kwargs, spare)


def _adapter(asked: RunConfig, facts: BaseFacts) -> AdapterConfig:
    """The adapter, its rank no larger than the base has room for where nobody named one."""
    adapter, method = methods.resolve(asked.method, asked.adapter, facts.scale, facts.layout), methods.get(asked.method)
    if asked.rank is not None or adapter.rank is None or facts.layout is None or "rank" not in method.uses:
        return adapter
    targets = facts.layout.targets(adapter.targets or ()).values()
    room = min((method.rank_limit(layer.out, layer.inp) for layer in targets), default=adapter.rank)
    return dataclasses.replace(adapter, rank=max(1, min(adapter.rank, room)))


def eval_problems(asked: RunConfig, task: Task | None) -> int:
    """How many problems are scored: as many as were asked for and the task has.

    Args:
        asked: the configuration.
        task: what they come from; ``None`` where it is not known yet.

    Raises:
        UserError: some were asked for, and the task has none.
    """
    wanted = EVAL_PROBLEMS if asked.eval_problems is None else asked.eval_problems
    if task is None or not wanted:
        return wanted
    has = len(task.at_most(asked.eval_split, wanted)) if asked.eval_split in task.splits else 0
    if not has and asked.eval_problems is not None:
        raise UserError(
            f"task {task.name} has no {asked.eval_split} problems: give it more rows, or set eval_problems to 0"
        )
    return has


def _micro_batch(filled: RunConfig, facts: BaseFacts) -> int | None:
    rows = (filled.prompts_per_step or 1) * filled.group_size
    if (filled.micro_batch or 0) > rows:
        raise UserError(f"micro_batch {filled.micro_batch} exceeds the {rows} completions of a step: lower it")
    if filled.micro_batch is not None or facts.card is not None:
        return filled.micro_batch or micro_batch(filled, facts)
    default = SCALES[facts.scale].micro_batch
    return None if default is None else min(default, rows)


def _optim(filled: RunConfig, facts: BaseFacts) -> Optim:
    if filled.optim != "auto" or facts.card is None:
        return "adamw_torch_fused" if filled.optim == "auto" else filled.optim
    shape, full, step, room = planned_step(filled, facts)
    eight = planned_step(dataclasses.replace(filled, optim="paged_adamw_8bit"), facts)[1]
    return optim_that_fits(shape, filled.precision, full, eight, step, room)


def optim_that_fits(
    shape: memory.Shape, precision: str, full: memory.Adapter, eight: memory.Adapter, step: memory.Step, room: int
) -> Optim:
    """AdamW with fp32 moments, unless only moments in 8 bits leave a step room that is split as far as it can be.

    Args:
        shape: of the base.
        precision: of its weights.
        full: what the method adds, with moments in fp32.
        eight: the same with moments in 8 bits.
        step: with the smallest micro-batch that is allowed.
        room: bytes that may be filled.
    """
    step = dataclasses.replace(step, prompts=1, copy=False)
    fits = [memory.peak(memory.phases(shape, precision, adapter, step))[1] <= room for adapter in (full, eight)]
    return "paged_adamw_8bit" if fits == [False, True] else "adamw_torch_fused"


def micro_batch(filled: RunConfig, facts: BaseFacts) -> int:
    """The largest micro-batch whose forward and backward pass fit the card of a base.

    It depends on the card's size alone, not on what is free, so that a resumed run takes the same.

    Args:
        filled: every other field filled in.
        facts: of a base on a card.
    """
    shape, adapter, step, room = planned_step(filled, facts)
    return max(1, memory.micro_batch(shape, filled.precision, adapter, step, room))


def completions_at_once(filled: RunConfig, facts: BaseFacts) -> int | None:
    """The most completions that fit beside each other while they are sampled; ``None``, for all, on a CPU.

    ``filled`` has every field filled in, ``facts`` are those of the base.
    """
    if facts.card is None or filled.sampler == "vllm":  # which sees to it itself
        return None
    shape, adapter, step, room = planned_step(filled, facts)
    return max(1, memory.prompts_at_once(shape, filled.precision, adapter, step, room)) * filled.group_size


def planned_step(filled: RunConfig, facts: BaseFacts) -> tuple[memory.Shape, memory.Adapter, memory.Step, int]:
    """What the memory plan reads, and the bytes that it may fill."""
    assert facts.card is not None
    assert facts.layout is not None
    assert facts.shape is not None
    adapter = methods.footprint(
        filled.method, facts.layout, filled.adapter, size=facts.itemsize, eight_bit=filled.optim == "paged_adamw_8bit"
    )
    step = memory.Step(
        prompts=filled.prompts_per_step or 1,
        group_size=filled.group_size,
        prompt_length=_PROMPT,
        completion_length=filled.max_completion_length or 1,
        micro_batch=filled.micro_batch or 1,
        rows=(filled.prompts_per_step or 1) * filled.group_size,
        checkpointing=bool(filled.gradient_checkpointing),
        copy=filled.rollout_copy is True and filled.precision == "nf4",
        engine=filled.sampler == "vllm",
    )
    return facts.shape, adapter, step, int(_SHARE * facts.card)

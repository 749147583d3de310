"""Before a run starts: does it fit the card, what takes the memory, and what would fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from rlvr_lite import bases, methods, resolve, tasks
from rlvr_lite.analysis import memory
from rlvr_lite.analysis.memory import GIB, Adapter, Shape, Step
from rlvr_lite.config import RunConfig, replace_fields, scale_of
from rlvr_lite.errors import UserError, as_html, printable
from rlvr_lite.grpo import position_limit
from rlvr_lite.host import this_card
from rlvr_lite.methods import footprint
from rlvr_lite.options import RunOptions, with_options
from rlvr_lite.planning import _advice as advice
from rlvr_lite.planning._bases import config_of
from rlvr_lite.planning._cards import CONTEXT, FRAGMENTATION, USABLE, Card, card
from rlvr_lite.planning._cost import Cost, run_cost
from rlvr_lite.planning._layouts import layout_of
from rlvr_lite.table import Table
from rlvr_lite.typed import checked

if TYPE_CHECKING:
    import pandas

    from rlvr_lite.figure import Figure

_PROMPT = 256  # tokens of a prompt of a task that need not be here

__all__ = ["Plan", "make", "plan", "plan_without_task", "shape_of"]


@with_options()
@checked
def plan(
    base: str | Path | None = None,
    method: str | None = None,
    gpu: str | None = None,
    *,
    task: Any = None,
    config: RunConfig | None = None,
    prompt_length: int | None = None,
    **overrides: Unpack[RunOptions],
) -> Plan:
    """What a run needs in memory, phase by phase, from the base's shapes alone.

    Args:
        base: ``tiny``, a model folder, a Hub model in the cache, or a well-known one (no network is needed); by default
            that of ``config``, else tiny.
        method: a name of ``rlvr_lite.list_methods()``; by default that of ``config``, else lora.
        gpu: a card such as ``"RTX 3060"``, or memory such as ``"16GiB"``; ``None`` takes this machine's, if it has one.
        task: as in ``rlvr_lite.train``; without it and without a ``config``, lengths are those of the base's scale.
        config: what holds where nothing is named, instead of the defaults.
        prompt_length: tokens of the longest prompt; by default that of the task, as far as a task is named.
        **overrides: any field of ``RunConfig``; ``None`` is not named.

    Returns:
        The plan, which prints itself. Its numbers are planned, not measured.

    Raises:
        UserError: an unknown base, method, card or option; a method on a base it cannot sit on; a rank without room.
    """
    if prompt_length is not None and (type(prompt_length) is not int or prompt_length < 1):
        raise UserError(f"prompt_length must be a whole number of at least 1, got {prompt_length!r}")
    start = config if isinstance(config, RunConfig) else RunConfig()
    named: dict[str, Any] = {"base": base, "method": method, "task": task, **overrides}
    chosen = None
    if not isinstance(task, str | Path | None):
        named["task_options"] = overrides.get("task_options") or start.task_options
        chosen = tasks.get(task, **named["task_options"])
        named["task"] = chosen.name
    if named.get("rewards") is not None:
        named["rewards"] = resolve.reward_functions(named["rewards"])[1]
    asked = resolve.merge(named, config)
    resolve.check(asked)
    where = card(gpu) if gpu is not None else _this_card()
    return make(asked, shape_of(asked), where, prompt_length, chosen or _task(asked, config is not None, task))


def shape_of(config: RunConfig) -> Shape:
    """Sizes of a configuration's base, from what is on this machine.

    Args:
        config: whose base is looked up.

    Raises:
        UserError: they are not to be had without a network.
    """
    return bases.shape_of(config.base, config_of(config.base, config.revision))


def plan_without_task(config: RunConfig, gpu: str | None = None) -> Plan:
    """The plan of a configuration whose task need not be on this machine: its prompts are taken for 256 tokens long.

    Args:
        config: open fields are filled as a run would fill them.
        gpu: a card or memory as in :func:`plan`; ``None`` takes this machine's, if it has one.

    Raises:
        UserError: an unknown base or card.
    """
    return make(config, shape_of(config), card(gpu) if gpu is not None else _this_card(), _PROMPT)


def _task(asked: RunConfig, configured: bool, named: Any) -> tasks.Task | None:
    """The task that lengths are taken from; one that a configuration names may be a data set that is not here."""
    if named is None and not configured:
        return None
    try:
        return tasks.get(asked.task, **asked.task_options)
    except UserError:
        if named is not None:
            raise
        return None


def make(
    asked: RunConfig, shape: Shape, chosen: Card | None, prompt_length: int | None, task: tasks.Task | None = None
) -> Plan:
    """The plan of a configuration on a base and a card, its open fields filled as a run would fill them."""
    half = chosen.half if chosen else "bf16"
    precision = half if asked.precision == "auto" else asked.precision
    methods.check_precision(asked.method, precision)
    shape = bases.with_activations(shape, 4 if precision == "fp32" else 2)
    layout = layout_of(shape).in_4_bits() if precision == "nf4" else layout_of(shape)
    positions = position_limit(bases.config_object(asked.base, shape.config))
    facts = resolve.BaseFacts(scale_of(layout.parameters), precision, layout, positions=positions)
    config = resolve.fill(asked, facts=facts, task=task)
    size = 4 if precision == "fp32" else 2
    methods.check_fits(config.method, config.adapter, layout)
    rows = (config.prompts_per_step or 1) * config.group_size
    config = dataclasses.replace(config, micro_batch=config.micro_batch or rows)
    full, eight = (footprint(asked.method, layout, config.adapter, size=size, eight_bit=low) for low in (False, True))
    step = Step(
        prompts=config.prompts_per_step or 1,
        group_size=config.group_size,
        prompt_length=prompt_length or resolve.prompt_tokens(config, task)[0],
        completion_length=config.max_completion_length or 1,
        micro_batch=config.micro_batch or rows,
        rows=rows,
        checkpointing=bool(config.gradient_checkpointing),
        reference=config.kl_coef > 0,
        copy=config.rollout_copy is True,
        engine=config.sampler == "vllm",
    )
    if chosen is not None and asked.optim == "auto":
        least = dataclasses.replace(step, micro_batch=asked.micro_batch or 1)
        optim = resolve.optim_that_fits(shape, precision, full, eight, least, chosen.room)
        config = dataclasses.replace(config, optim=optim)
    adapter = eight if config.optim == "paged_adamw_8bit" else full
    if chosen is not None:
        auto = config.rollout_copy == "auto" and not step.engine
        if auto and precision == "nf4" and config.backend != "unsloth":
            step = dataclasses.replace(step, copy=memory.copy_fits(shape, adapter, step, chosen.room))
        prompts = memory.prompts_at_once(shape, precision, adapter, step, chosen.room) or 1
        step = dataclasses.replace(step, prompts=prompts)
    bill = memory.phases(shape, precision, adapter, step)
    return Plan(asked, config, shape, chosen, adapter, step, bill)


def _this_card() -> Card | None:
    """The card that this process uses."""
    facts = this_card()
    return None if facts is None else Card(facts.name, int(facts.total_memory / USABLE), facts.major + facts.minor / 10)


@dataclass(frozen=True)
class Plan:
    """A planned run.

    Attributes:
        asked: the configuration as it was asked for.
        config: the same with the fields filled that decide about memory.
        shape: of the base.
        card: it is planned for; ``None`` if none was named and this machine has none.
        adapter: what the method adds.
        step: sizes; ``step.prompts`` are the prompts sampled at once.
        phases: bytes by phase and kind at the highest moment of each phase.
        source: ``closed form``, ``dry run`` or ``measured``.
    """

    asked: RunConfig
    config: RunConfig
    shape: Shape
    card: Card | None
    adapter: Adapter
    step: Step
    phases: Mapping[str, Mapping[str, int]]
    source: str = "closed form"

    # ---- numbers ----------------------------------------------------------------------------------------------

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return memory.peak(self.phases)[0]

    @property
    def peak(self) -> int:
        """Bytes of a card that the highest phase takes: live tensors, context and fragmentation."""
        return self.needed()

    @property
    def peak_tensors(self) -> int:
        """Bytes of live tensors at the highest moment, without context and fragmentation."""
        return memory.peak(self.phases)[1]

    def needed(self, phase: str | None = None) -> int:
        """Bytes of a card that ``phase`` takes, context and fragmentation included; by default the highest phase."""
        kinds = self.phases[phase or self.peak_phase]
        loose = sum(size for kind, size in kinds.items() if kind != "weights")
        return sum(kinds.values()) + int(FRAGMENTATION * loose) + CONTEXT

    @property
    def available(self) -> int | None:
        """Bytes the card gives to programs."""
        return None if self.card is None else self.card.usable

    @property
    def fits(self) -> bool | None:
        """Whether it fits the card; ``None`` without one."""
        return None if self.available is None else self.peak <= self.available

    @property
    def cost(self) -> Cost:
        """Generated tokens, hours and disk of the run, from a throughput that it states."""
        return run_cost(self)

    def with_fields(self, **fields: Any) -> Plan:
        """The plan of the same run with other values for ``fields`` of its configuration."""
        if fields.get("precision", "nf4") != "nf4":  # then there is nothing to copy
            fields.setdefault("rollout_copy", "auto")
        fields.setdefault("optim", self.asked.optim)  # which moments fit may change
        return make(resolve.merge(fields, self.config), self.shape, self.card, self.step.prompt_length)

    def on_card(self, chosen: Card) -> Plan:
        """The plan of the same run on another card; a base held in 16 bits is held in that card's 16-bit type.

        Args:
            chosen: the other card.
        """
        config = dataclasses.replace(self.config, optim=self.asked.optim)
        if config.precision in ("bf16", "fp16"):
            config = dataclasses.replace(config, precision=chosen.half)
        return make(config, self.shape, chosen, self.step.prompt_length)

    @cached_property
    def knobs(self) -> Table:
        """What each change saves, in GiB."""
        return advice.knobs(self)

    @property
    def advice(self) -> list[str]:
        """Sentences: whether it fits, what to change first, whether a 16-bit base would fit as well."""
        return advice.sentences(self)

    def fit(self) -> RunConfig:
        """A configuration that fits the card, changed as little as possible; give it to ``rlvr_lite.train(config=...)``.

        Gradient checkpointing, micro-batch and the base's precision are changed first, because they leave the learning
        problem alone; then the completion length and last the group size.

        Raises:
            UserError: there is no card, or nothing fits; the message names the least that would.
        """
        return advice.fit(self)

    # ---- how it shows itself ----------------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """One row a phase, in GiB."""
        kinds = list(dict.fromkeys(kind for bill in self.phases.values() for kind in bill if kind != "total"))
        rows = [
            {"phase": phase}
            | {kind: round(bill.get(kind, 0) / GIB, 3) for kind in kinds}
            | {"tensors": round(sum(bill.values()) / GIB, 2), "with context": round(self.needed(phase) / GIB, 2)}
            for phase, bill in self.phases.items()
        ]
        note = (
            f"GiB, {self.source}; {CONTEXT / GIB:g} GiB of context and {FRAGMENTATION:.0%} of fragmentation are assumed"
        )
        return Table.of(rows, title=self.title, note=note)

    @property
    def title(self) -> str:
        """One line: what is planned."""
        c, step = self.config, self.step
        on = f" on {self.card}" if self.card else ""
        return (
            f"{c.base}, {c.precision}, {c.method}{f' r={c.rank}' if c.rank else ''}: {c.prompts_per_step} prompts of "
            f"{step.prompt_length} tokens x {c.group_size} completions of {c.max_completion_length}, micro-batch {step.micro_batch}{on}"
        )

    def __repr__(self) -> str:
        return f"Plan({self.title!r}, peak {self.peak / GIB:.1f} GiB)"

    def __str__(self) -> str:
        return printable("\n".join([str(self.table), "", *self.advice, f"Cost: {self.cost}.", "", str(self.knobs)]))

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{as_html(sentence)}</p>" for sentence in (*self.advice, f"Cost: {self.cost}."))
        return self.table._repr_html_() + said + self.knobs._repr_html_()

    def to_pandas(self) -> pandas.DataFrame:
        """The table of phases as a ``pandas.DataFrame`` (needs pandas)."""
        return self.table.to_pandas()

    def plot(self) -> Figure:
        """A bar for each phase, stacked by kind, with the card's memory as a line."""
        from rlvr_lite.planning._figures import bars

        return bars(self)

    # ---- JSON -------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The plan as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The inverse of :meth:`to_json`.

        Raises:
            UserError: ``text`` is no plan.
        """
        try:
            values = json.loads(text)
            return cls(
                asked=replace_fields(RunConfig(), values["asked"]),
                config=replace_fields(RunConfig(), values["config"]),
                shape=Shape(**values["shape"]),
                card=None if values["card"] is None else Card(**values["card"]),
                adapter=Adapter(**values["adapter"]),
                step=Step(**values["step"]),
                phases=values["phases"],
                source=values["source"],
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"not a plan: {type(error).__name__} {error}; write one with Plan.to_json") from error

    def dry_run(self) -> Plan:
        """The same plan with the phases of the real step, run on fake tensors: seconds, no GPU, no weights."""
        from rlvr_lite.planning._dry_run import planned_phases

        return dataclasses.replace(self, phases=planned_phases(self), source="dry run")

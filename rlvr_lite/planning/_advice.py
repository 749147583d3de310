"""What to change when a plan does not fit, and what each change saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlvr_lite import methods
from rlvr_lite.analysis import memory
from rlvr_lite.analysis.memory import GIB
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.planning._cards import CARDS, USABLE, smallest
from rlvr_lite.table import Table

if TYPE_CHECKING:
    from rlvr_lite.planning._planned import Plan

__all__ = ["fit", "knobs", "sentences", "smallest_card"]

_SHORTEST = 256  # tokens: below that a model cannot reason
_SMALLEST_GROUP = 4


def knobs(plan: Plan) -> Table:
    """One row a change: the plan's highest moment with it, and what it saves."""
    rows: list[dict[str, Any]] = []

    def row(knob: str, now: object, then: object, needed: int) -> None:
        fits = None if plan.available is None else needed <= plan.available
        saved = (plan.needed() - needed) / GIB
        rows.append(
            {"knob": knob, "now": str(now), "then": str(then), "GiB": round(needed / GIB, 2), "saves": round(saved, 2)}
            | ({} if fits is None else {"fits": fits})
        )

    for name, value in _changes(plan):
        changed = _held(plan, plan.with_fields(**({"optim": plan.config.optim} | {name: value})))
        row(name, getattr(plan.config, name), value, changed.needed())
    return Table.of(rows, title="What each change would save (GiB, planned)")


def _changes(plan: Plan) -> Iterator[tuple[str, Any]]:
    config, step = plan.config, plan.step
    if config.group_size >= 4:
        yield "group_size", config.group_size // 2
    if step.completion_length >= 2:
        yield "max_completion_length", step.completion_length // 2
    if step.micro_batch > 1:
        yield "micro_batch", step.micro_batch // 2
    for precision in ("nf4", "bf16" if plan.card is None else plan.card.half, "fp32"):
        if precision != config.precision and precision not in methods.get(config.method).unsupported:
            yield "precision", precision
    if step.engine:
        yield "sampler", "transformers"
    yield "gradient_checkpointing", not config.gradient_checkpointing
    if config.rank is not None and config.rank > 1 and methods.get(config.method).fixed_rank is None:
        yield "rank", config.rank // 2
    yield "optim", "adamw_torch_fused" if config.optim == "paged_adamw_8bit" else "paged_adamw_8bit"


def _held(plan: Plan, changed: Plan) -> Plan:
    """A changed plan that samples as many prompts at once as before, so that only the change counts."""
    step = dataclasses.replace(changed.step, prompts=plan.step.prompts)
    bill = memory.phases(changed.shape, str(changed.config.precision), changed.adapter, step)
    return dataclasses.replace(changed, step=step, phases=bill)


def sentences(plan: Plan) -> list[str]:
    """What a reader should know, most important first."""
    said = [_verdict(plan)]
    step, config = plan.step, plan.config
    if plan.card is not None and step.sampled < step.rows:
        splits = "vLLM queues the others" if step.engine else "the trainer splits them by itself"
        said.append(
            f"Rollouts: the cache of {step.prompts} of {config.prompts_per_step} prompts fits at a time; {splits}."
        )
    if plan.card is not None and plan.card.half == "fp16":
        said.append(f"{plan.card.name} has compute capability {plan.card.capability}: it computes in fp16, not bf16.")
    half = plan.card.half if plan.card else "bf16"
    if config.precision == "nf4" and plan.fits and not step.engine:
        other = plan.with_fields(precision=half)
        if other.fits:
            said.append(
                f"A {half} base would fit as well ({other.needed() / GIB:.1f} GiB): it samples faster, because NF4 weights "
                "are unpacked again at every token."
            )
    return said


def _verdict(plan: Plan) -> str:
    needed = plan.needed() / GIB
    if plan.available is None:
        return (
            f"Needs {needed:.1f} GiB (highest in {plan.peak_phase}); the smallest card for it: {smallest_card(plan)}."
        )
    available = plan.available / GIB
    if plan.fits:
        return f"Fits {plan.card}: {needed:.1f} of {available:.1f} GiB, highest in {plan.peak_phase}."
    try:
        changed = fit(plan)
    except UserError as error:
        return f"Does not fit: {error}."
    first = next(name for name in _ORDER if getattr(changed, name) != getattr(plan.config, name))
    rest = [
        f"{name} {getattr(plan.config, name)} -> {getattr(changed, name)}"
        for name in _ORDER
        if getattr(changed, name) != getattr(plan.config, name)
    ]
    also = f" (what fits: {', '.join(rest)})" if len(rest) > 1 else ""
    return (
        f"Does not fit {plan.card}: {needed:.1f} of {available:.1f} GiB, highest in {plan.peak_phase}. "
        f"First change {first} from {getattr(plan.config, first)} to {getattr(changed, first)}{also}."
    )


def smallest_card(plan: Plan) -> str:
    """The card with the least memory that the plan fits on as it is, sampling as few prompts at once as it must."""
    fitting = (chosen for chosen in sorted(CARDS, key=lambda c: c.memory) if plan.on_card(chosen).fits)
    return str(next(fitting, "none of those known here"))


_ORDER = ("gradient_checkpointing", "micro_batch", "sampler", "precision", "max_completion_length", "group_size")


def fit(plan: Plan) -> RunConfig:
    """See :meth:`Plan.fit`."""
    if plan.available is None:
        raise UserError("a configuration that fits needs a card to fit on: give gpu, such as 'RTX 3060' or '16GiB'")
    if plan.fits and plan.asked.micro_batch is not None:
        return _open(plan)
    least = plan
    for candidate in _candidates(plan):
        if candidate.fits:
            return _open(_widest(candidate, plan))
        least = min(least, candidate, key=lambda p: p.needed())
    needed = least.needed() / GIB
    bigger = smallest(int(least.needed() / USABLE))
    raise UserError(
        f"{plan.config.method} on {plan.config.base} does not fit {plan.card}: the least is {needed:.1f} GiB "
        f"({least.config.precision}, group_size {least.config.group_size}, {least.config.max_completion_length} tokens, "
        f"micro_batch {least.step.micro_batch}); take {bigger or 'a larger card'} or a smaller base"
    )


def _candidates(plan: Plan) -> Iterator[Plan]:
    """The plan, then with ever larger changes; each with the smallest micro-batch, which is widened afterwards."""
    yield plan
    if plan.step.engine:  # where it is vLLM's weights that do not fit, nothing else need change
        yield plan.with_fields(sampler="transformers")
    tight = plan.with_fields(gradient_checkpointing=True, micro_batch=1)
    yield tight
    if plan.step.engine:
        tight = tight.with_fields(sampler="transformers")
        yield tight
    if plan.config.precision != "nf4" and "nf4" not in methods.get(plan.config.method).unsupported:
        tight = tight.with_fields(precision="nf4")
        yield tight
    while (tight.config.max_completion_length or 0) >= 2 * _SHORTEST:
        tight = tight.with_fields(max_completion_length=(tight.config.max_completion_length or 0) // 2)
        yield tight
    while tight.config.group_size >= 2 * _SMALLEST_GROUP:
        tight = tight.with_fields(group_size=tight.config.group_size // 2)
        yield tight


def _widest(candidate: Plan, plan: Plan) -> Plan:
    """With the largest micro-batch that fits, up to what was asked for."""
    if candidate is plan and plan.asked.micro_batch is not None:
        return candidate
    assert candidate.card is not None
    size = memory.micro_batch(
        candidate.shape, str(candidate.config.precision), candidate.adapter, candidate.step, candidate.card.room
    )
    most = plan.asked.micro_batch or (size if candidate is plan else plan.step.micro_batch)
    return candidate.with_fields(micro_batch=max(1, min(size, most)))


def _open(plan: Plan) -> RunConfig:
    """What was asked for, with the fields set that decide about memory; everything else is filled by the run."""
    names = (
        "precision",
        "sampler",
        "prompts_per_step",
        "group_size",
        "max_completion_length",
        "gradient_checkpointing",
        "optim",
    )
    fields = {name: getattr(plan.config, name) for name in names}
    return dataclasses.replace(plan.asked, **fields, micro_batch=plan.step.micro_batch, **_adapter_fields(plan))


def _adapter_fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan.asked, name) for name in ("rank", "alpha", "targets", "method_options")}

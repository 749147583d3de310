"""Memory: a plan against what is measured, and what is left after an allocation that cannot succeed."""

from __future__ import annotations

import torch
from transformers import AutoConfig

from rlvr_lite import methods, sampling
from rlvr_lite.analysis.memory import Step
from rlvr_lite.config import AdapterConfig
from rlvr_lite.diagnostics._check import Finding
from rlvr_lite.diagnostics._subject import Subject
from rlvr_lite.planning import dry_run, measure_step, plan
from rlvr_lite.planning.measure import measure

__all__ = ["out_of_memory", "plan_against_measured"]

_STEP = Step(
    prompts=4, group_size=4, prompt_length=32, completion_length=48, micro_batch=16, rows=16, checkpointing=False
)
_LOW, _HIGH = 0.9, 1.3  # planned over measured


def plan_against_measured(subject: Subject) -> Finding:
    """Planned over measured memory by phase: of two blocks of the paper's base on a card, of the tiny base on a CPU."""
    if subject.card:
        large = subject.large(2).name
        report = measure(
            plan(large, "lora", prompts_per_step=2, group_size=8, max_completion_length=256, micro_batch=4)
        )
        planned = {phase: sum(report.plan.phases[phase].values()) for phase in report.measured}
        measured = report.measured
    else:
        base = subject.exact
        config = AutoConfig.from_pretrained(base.model.config._name_or_path)
        adapter = methods.resolve("lora", AdapterConfig(), base.scale)
        dry = dry_run(config, "fp32", "lora", adapter, _STEP, device="cpu", compute=torch.float32).peaks
        with subject.policy(base) as model:
            real = measure_step(model, "lora", torch.float32, _STEP, device="cpu").peaks
        planned, measured = ({phase: kinds["total"] for phase, kinds in peaks.items()} for peaks in (dry, real))
    ratios = {phase: planned[phase] / measured[phase] for phase in measured if measured[phase]}
    figure = ", ".join(f"{phase} {ratio:.2f}" for phase, ratio in ratios.items())
    good = bool(ratios) and _LOW <= ratios[max(ratios, key=lambda phase: measured[phase])] <= _HIGH
    return Finding(
        f"planned / measured: {figure}", f"{_LOW:g} to {_HIGH:g} at the peak", good, "plan with a margin, and report it"
    )


def out_of_memory(subject: Subject) -> Finding:
    """More than the card has is asked for, and a rollout afterwards is as before."""
    subject.needs_card()
    prompts, keys = subject.prompts(1), sampling.row_keys(0, rows=2)
    with subject.policy(subject.exact) as model:
        before = subject.rollout(model, prompts, 2, 8, keys).tokens
        held = torch.cuda.memory_allocated()
        try:
            torch.empty(4 * subject.host.memory, dtype=torch.uint8, device=subject.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        else:
            return Finding(
                "four times the card's memory was given", "an out-of-memory error", False, "upgrade the driver"
            )
        left = torch.cuda.memory_allocated() - held
        same = torch.equal(before, subject.rollout(model, prompts, 2, 8, keys).tokens)
    return Finding(
        f"recovered; {left:,} bytes lost", "the same rollout, 0 bytes", same and left <= 0, "upgrade PyTorch"
    )

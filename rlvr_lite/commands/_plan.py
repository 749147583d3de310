"""Plan memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from rlvr_lite.config import Precision

__all__ = ["plan"]


def plan(
    base: Annotated[str, tyro.conf.Positional],
    *,
    method: str = "lora",
    gpu: str | None = None,
    precision: Precision = "auto",
    prompts_per_step: int | None = None,
    group_size: int = 8,
    max_completion_length: int | None = None,
    prompt_length: int = 256,
    micro_batch: int | None = None,
    rank: int | None = None,
    kl_coef: float = 0.0,
    gradient_checkpointing: bool | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    measure: bool = False,
    out: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Before a run is started: does it fit the card, and what would?

    Args:
        base: `tiny`, a model folder, a Hub model in the cache, or a well-known one (no network is needed).
        method: adapter method.
        gpu: a card such as "RTX 3060" or t4, or memory such as 16GiB; by default this machine's.
        precision: of the base; auto takes the card's 16-bit type.
        prompts_per_step: prompts drawn for one optimizer step.
        group_size: completions sampled for each prompt.
        max_completion_length: longest completion in tokens.
        prompt_length: longest prompt in tokens.
        micro_batch: completions a backward pass.
        rank: r of the adapter.
        kl_coef: weight of the KL term; above 0 the frozen base scores completions too.
        gradient_checkpointing: recompute activations in the backward pass.
        revision: of a Hub model.
        dry_run: run the real step on fake tensors and count every storage (seconds; no GPU, no weights).
        measure: run the real step on this machine's GPU, and write a report.
        out: where the plan, or the report, is written as JSON.
        plot: write a picture of the phases here.
    """
    from rlvr_lite.planning import plan as make_plan
    from rlvr_lite.records import write_text

    found = make_plan(
        base,
        method,
        gpu,
        prompt_length=prompt_length,
        precision=precision,
        prompts_per_step=prompts_per_step,
        group_size=group_size,
        max_completion_length=max_completion_length,
        micro_batch=micro_batch,
        rank=rank,
        kl_coef=kl_coef,
        gradient_checkpointing=gradient_checkpointing,
        revision=revision,
    )
    if measure:
        from rlvr_lite.planning.measure import measure as measure_plan

        report, target = measure_plan(found), out or Path("memory_report.json")
        report.write(target)
        print(f"{report}\nwrote {target}")
        return
    print(found)
    if dry_run:
        found = found.dry_run()
        print(f"\n{found.table}")
    if out is not None:
        write_text(out, found.to_json())
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")

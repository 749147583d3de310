"""Plan memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlvr_lite.options import with_options

__all__ = ["plan"]


@with_options()
def plan(
    base: str | None = None,
    method: str | None = None,
    gpu: str | None = None,
    *,
    task: str | None = None,
    recipe: str | None = None,
    prompt_length: int | None = None,
    dry_run: bool = False,
    measure: bool = False,
    out: Path | None = None,
    plot: Path | None = None,
    **options: Any,
) -> None:
    """Before a run is started: does it fit the card, and what would?

    Args:
        base: `tiny`, a model folder, a Hub model in the cache, or a well-known one (no network is needed).
        method: adapter method; by default the recipe's, else lora.
        gpu: a card such as "RTX 3060" or t4, or memory such as 16GiB; by default this machine's.
        task: whose lengths are planned for; without it and without a recipe those of the base's scale.
        recipe: protocol that every option not given is taken from (see recipes), or a TOML file.
        prompt_length: tokens of the longest prompt; by default the task's.
        dry_run: run the real step on fake tensors and count every storage (seconds; no GPU, no weights).
        measure: run the real step on this machine's GPU, and write a report.
        out: where the plan, or the report, is written as JSON.
        plot: write a picture of the phases here.
        **options: of the run.
    """
    from rlvr_lite.planning import plan as make_plan
    from rlvr_lite.recipes import recipe as read_recipe
    from rlvr_lite.records import write_text

    config = None if recipe is None else read_recipe(recipe)
    found = make_plan(base, method, gpu, task=task, config=config, prompt_length=prompt_length, **options)
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

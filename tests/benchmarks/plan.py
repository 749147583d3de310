"""Memory plans against what they stand for; nothing here needs a GPU.

    python -m tests.benchmarks.plan closed --bases 1.5B 7B      # closed form beside a dry run
    python -m tests.benchmarks.plan measured                    # dry run beside a real step on this CPU
    python -m tests.benchmarks.plan full                        # a 1.5B in NF4 with random weights really trains a step
    python -m tests.benchmarks.plan cards                       # the smallest card for each method
    python -m tests.benchmarks.plan calibrate                   # what every method states as its memory

``closed`` compares live tensors, phase by phase and at the highest; ``measured`` compares the dry run with live tensors of the
real step, counted by the same meter, and with the growth of the process's resident memory.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from rlvr_lite import methods
from rlvr_lite.analysis.memory import GIB, Step, phases
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods import footprint
from rlvr_lite.planning import plan
from rlvr_lite.planning._layouts import layout_of
from rlvr_lite.table import Table
from tests.methods.cells import THE_PAPERS

BASES = {"1.5B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "7B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"}
MIB = 2**20


def closed(bases: Sequence[str], names: Sequence[str], lengths: Sequence[int], groups: Sequence[int]) -> Table:
    """Closed form over dry run, at the highest phase and in every phase, with the dry run's CPU seconds."""
    rows = []
    for base in bases:
        for name in names:
            for length in lengths:
                for group in groups:
                    rows.append(_closed(base, name, length, group))
                    print(rows[-1], flush=True)
    ratios = [row["closed / dry"] for row in rows]
    note = f"{len(rows)} cells, smallest {min(ratios):.3f}, largest {max(ratios):.3f}"
    return Table.of(rows, title="Closed form over dry run", note=note)


def _closed(base: str, name: str, length: int, group: int) -> dict[str, Any]:
    precision = "bf16" if "nf4" in methods.get(name).unsupported else "nf4"
    known = plan(
        BASES[base],
        name,
        "80GiB",
        precision=precision,
        max_completion_length=length,
        group_size=group,  # type: ignore[arg-type]
    )
    started = time.process_time()
    dry = known.dry_run()
    seconds = time.process_time() - started
    by_phase = {phase: sum(known.phases[phase].values()) / sum(dry.phases[phase].values()) for phase in known.phases}
    return {
        "base": base,
        "precision": precision,
        "method": name,
        "tokens": length,
        "G": group,
        "dry GiB": round(dry.peak_tensors / GIB, 3),
        "highest": dry.peak_phase,
        "closed / dry": round(known.peak_tensors / dry.peak_tensors, 3),
        "rollout": round(by_phase["rollout"], 3),
        "forward": round(by_phase["forward"], 3),
        "backward": round(by_phase["backward"], 3),
        "seconds": round(seconds, 1),
    }


def cards() -> Table:
    """The smallest card on which each method trains at 1.5B, G = 8, 2,048 tokens; planned."""
    rows = []
    for name in THE_PAPERS:
        row: dict[str, Any] = {"method": name}
        for precision in ("nf4", "bf16"):
            if precision in methods.get(name).unsupported:
                continue
            row |= _smallest(name, precision)
        rows.append(row)
    return Table.of(rows, title="DeepSeek-R1-Distill-Qwen-1.5B, G = 8, 2,048 tokens, planned (GiB with context)")


def _smallest(name: str, precision: str) -> dict[str, Any]:
    from rlvr_lite.planning import CARDS

    for chosen in sorted(CARDS, key=lambda c: c.memory):
        kind = chosen.half if precision == "bf16" else precision
        found = plan(BASES["1.5B"], name, chosen.name, precision=kind, group_size=8, max_completion_length=2048)  # type: ignore[arg-type]
        if found.fits:
            return {
                f"{precision}: card": str(chosen),
                f"{precision}: needs": round(found.needed() / GIB, 1),
                f"{precision}: highest": found.peak_phase,
                f"{precision}: prompts at once": found.step.prompts,
            }
    return {f"{precision}: card": "none"}


# ---- against a real step on a CPU ---------------------------------------------------------------------------------


@contextmanager
def resident() -> Iterator[Callable[[], int]]:
    """Bytes by which the process's resident memory rose above its start, at the highest."""
    page = os.sysconf("SC_PAGE_SIZE")

    def now() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * page

    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: a tensor that is freed leaves the process, instead of a heap with holes
    libc.malloc_trim(0)  # what was freed before must not be there for the taking
    start, highest, done = now(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], now())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(highest[0], now()) - start
    finally:
        done.set()
        watcher.join()


def measured(names: Sequence[str]) -> Table:
    """Dry run beside the real step, on the embedded base and on SmolLM2, in three precisions."""
    places = {"tiny": "tiny"}
    if os.environ.get("RLVR_LITE_SMOLLM2"):
        places["SmolLM2-135M"] = os.environ["RLVR_LITE_SMOLLM2"]
    rows = []
    for label, base in places.items():
        for precision in ("fp32", "bf16", "nf4"):
            for name in names:
                if precision not in methods.get(name).unsupported:
                    rows.append({"base": label} | _measured(base, precision, name))
                    print(rows[-1], flush=True)
    return Table.of(rows, title="Dry run over live tensors of the real step, on a CPU")


def _measured(base: str, precision: str, name: str) -> dict[str, Any]:
    import transformers

    from rlvr_lite import bases
    from rlvr_lite.planning._dry_run import dry_run, measure_step

    small = base == "tiny"
    length = 48 if small else 96
    step = Step(
        prompts=4,
        group_size=4,
        prompt_length=32,
        completion_length=length,
        micro_batch=16 if small else 4,
        rows=16,
        checkpointing=not small,
        reference=name != "full",
    )
    loaded = bases.load(base, precision)  # type: ignore[arg-type]
    adapter = methods.resolve(name, AdapterConfig(), loaded.scale)
    config = transformers.AutoConfig.from_pretrained(loaded.model.config._name_or_path)
    dry = dry_run(config, precision, name, adapter, step, device="cpu", compute=loaded.compute_dtype).peaks
    model = methods.attach(loaded.model, name, adapter, total_steps=100, seed=0)
    measure_step(model, name, loaded.compute_dtype, step, device="cpu")  # libraries take their own memory once
    with resident() as grown:
        real = measure_step(model, name, loaded.compute_dtype, step, device="cpu").peaks
        risen = grown()
    highest = max(real, key=lambda phase: real[phase]["total"])
    held = real["load"]["total"]
    row = {
        "precision": precision,
        "method": name,
        "highest": highest,
        "dry MiB": round(max(p["total"] for p in dry.values()) / MIB, 1),
        "real MiB": round(real[highest]["total"] / MIB, 1),
        "dry / real": round(max(p["total"] for p in dry.values()) / real[highest]["total"], 3),
        "rise dry MiB": round((max(p["total"] for p in dry.values()) - held) / MIB, 1),
        "rise RSS MiB": round(risen / MIB, 1),
    }
    return row | {phase: round(dry[phase]["total"] / real[phase]["total"], 3) for phase in real}


def full(length: int) -> Table:
    """A 1.5B in NF4 with random weights trains a step: planned, counted and resident."""
    import torch
    from transformers import AutoConfig

    from rlvr_lite.planning._bases import config_of
    from rlvr_lite.planning._dry_run import dry_run, measure_step
    from rlvr_lite.planning._shapes import materialise, policy_on_meta

    found = dict(config_of(BASES["1.5B"]))
    config = AutoConfig.for_model(found.pop("model_type"), **found)
    adapter = methods.resolve("lora", AdapterConfig(), "paper")
    step = Step(
        prompts=1, group_size=2, prompt_length=32, completion_length=length, micro_batch=2, rows=2, checkpointing=True
    )
    shape = plan(BASES["1.5B"]).shape
    added = footprint("lora", layout_of(shape), adapter, size=2)
    dry = dry_run(config, "nf4", "lora", adapter, step, device="cpu").peaks
    model = policy_on_meta(config, "nf4", "lora", adapter, torch.bfloat16)
    with resident() as grown:
        materialise(model)
        _fill(model)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        with resident() as in_step:
            started = time.process_time()
            real = measure_step(model, "lora", torch.bfloat16, step, device="cpu").peaks
            seconds = time.process_time() - started
            rise = in_step()
        risen = grown()
    moved = sum(int((p.detach() != before[n]).sum()) for n, p in model.named_parameters() if p.requires_grad)
    bill = phases(shape, "nf4", added, step, device="cpu")
    rows = [
        {
            "phase": phase,
            "closed MiB": round(sum(bill[phase].values()) / MIB),
            "dry MiB": round(dry[phase]["total"] / MIB),
            "real MiB": round(real[phase]["total"] / MIB),
        }
        for phase in real
    ]
    note = (
        f"resident memory rose by {risen / MIB:.0f} MiB in all, by {rise / MIB:.0f} MiB within the step; {seconds:.0f} CPU s; "
        f"the update moved {moved:,} of {added.trained:,} trained numbers"
    )
    return Table.of(rows, title=f"DeepSeek-R1-Distill-Qwen-1.5B in NF4, LoRA r32, 2 x {length} tokens", note=note)


def _fill(model: Any) -> None:
    """Random numbers in every tensor; the scales of 4-bit weights are all the same."""
    import torch
    from bitsandbytes.functional import get_4bit_type

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            state = getattr(tensor, "quant_state", None)
            if state is not None:
                tensor.random_(0, 256)
                state.code.copy_(get_4bit_type("nf4", device="cpu"))
                state.absmax.fill_(255)
                state.offset.zero_()
                state.state2.absmax.fill_(0.05)
                state.state2.code.copy_(torch.linspace(-1, 1, 256))
            elif "norm" in name:
                tensor.fill_(1)
            elif "inv_freq" in name:
                tensor.copy_(10000.0 ** -torch.linspace(0, 1, len(tensor)))
            else:
                tensor.normal_(std=0.02)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["closed", "measured", "full", "cards", "calibrate"])
    parser.add_argument("--bases", nargs="+", default=list(BASES))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 2048, 8192])
    parser.add_argument("--groups", nargs="+", type=int, default=[4, 8])
    given = parser.parse_args()
    names = given.methods or methods.names()
    tables = {
        "closed": lambda: closed(given.bases, names, given.lengths, given.groups),
        "measured": lambda: measured(given.methods or ["lora"]),
        "full": lambda: full(24),
        "cards": cards,
    }
    if given.what in tables:
        table = tables[given.what]()
        print(f"{table.title}\n\n{table.to_markdown()}\n\n{table.note}")
    else:
        from tests.benchmarks.plan_calibration import calibrate

        calibrate(names)


if __name__ == "__main__":
    main()

"""Spectral analysis of a LoRA on the shapes of a 1.5B model: from the factors, against dense decompositions.

    python -m tests.benchmarks.spectrum [--repeats 3] [--float32]
    python -m tests.benchmarks.spectrum --share     # the live probe inside real runs (SmolLM2: RLVR_LITE_SMOLLM2)

28 layers x 7 matrices = 196 updates of rank 32 with random weights and factors. Each distinct shape is measured and
multiplied by how often it occurs; a dense SVD of all 196 would take a quarter of an hour and tell the same. Both sides
take W's own decomposition as given (it is computed once and cached; its time is shown apart) and measure the same:
singular values and ranks of dW, energies on both sides, rotation, drift and intruders of the leading subspace.
Times are CPU seconds of one thread, so that a busy machine does not favour a side; medians, sides in the same run.
The peak memory is what a side adds in a fresh process to the weight, its decomposition and the libraries (Linux only).
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlvr_lite.analysis.spectrum import (
    BaseSpectrum,
    SpectrumProbe,
    Update,
    decompose,
    directions,
    measure_matrix,
    probe_base,
)
from rlvr_lite.table import Table
from rlvr_lite.training import train

RANK = 32
LAYERS = 28
#: (out, in) of DeepSeek-R1-Distill-Qwen-1.5B, and how often a layer has it.
SHAPES = {"q, o": ((1536, 1536), 2), "k, v": ((256, 1536), 2), "gate, up": ((8960, 1536), 2), "down": ((1536, 8960), 1)}


def make(shape: tuple[int, int]) -> tuple[Tensor, Update]:
    generator = torch.Generator().manual_seed(0)
    out, inp = shape
    # A decaying spectrum: pure noise has none, and its leading subspace would be easier to follow.
    weight = torch.randn(out, min(shape), generator=generator) * torch.arange(1, min(shape) + 1) ** -0.3
    weight = weight @ torch.randn(min(shape), inp, generator=generator) / 1000
    b, a = torch.randn(out, RANK, generator=generator) * 1e-3, torch.randn(RANK, inp, generator=generator) / inp**0.5
    return weight, Update("m", weight, (b, a, 2.0))


def low_rank(base: BaseSpectrum, weight: Tensor, update: Update) -> dict[str, float]:
    found = measure_matrix("m", base, directions(update), weight.double())
    assert found.right is not None
    assert found.left is not None
    assert found.principal is not None
    return {
        "effective_rank": found.effective_rank,
        "right": found.right.bins[0].energy,  # type: ignore[union-attr]
        "left": found.left.bins[0].energy,  # type: ignore[union-attr]
        "rotation": found.principal.rotation_left,
        "drift": found.principal.drift,
    }


def singular_vectors(base: BaseSpectrum, weight: Tensor) -> tuple[Tensor, Tensor]:
    """W's left singular vectors and its transposed right ones, for the dense side."""
    short = base.basis
    if base.short == "right":
        return weight.double() @ short / base.values, short.T.contiguous()
    return short, (weight.double().T @ short / base.values).T.contiguous()


def dense(
    u: Tensor, s: Tensor, vh: Tensor, weight: Tensor, update: Update, dtype: torch.dtype = torch.float64
) -> dict[str, float]:
    b, a, scale = update.factors  # type: ignore[misc]
    wide = weight.shape[0] < weight.shape[1]
    if wide:  # LAPACK is up to four times faster on tall matrices
        u, vh, weight, b, a = vh.T, u.T, weight.T, a.T, b.T
    change = scale * (b.to(dtype) @ a.to(dtype))
    values = torch.linalg.svdvals(change)
    total = (values**2).sum()
    share = values / values.sum()
    energies = ((change @ vh.T) ** 2).sum(0) / total, ((u.T @ change) ** 2).sum(1) / total
    u2, s2, vh2 = torch.linalg.svd(weight.to(dtype) + change, full_matrices=False)
    k, top = min(32, len(s) // 4), round(len(s) / 10)
    turned = [
        torch.linalg.matrix_norm(vh2[:k].T - vh[:k].T @ (vh[:k] @ vh2[:k].T), 2),
        torch.linalg.matrix_norm(u2[:, :k] - u[:, :k] @ (u[:, :k].T @ u2[:, :k]), 2),
    ]
    _ = (u.T @ u2[:, :10]).abs().max(0).values < 0.5
    right, left = (1, 0) if wide else (0, 1)
    return {
        "effective_rank": float(torch.exp(-(share * share.clamp(min=1e-300).log()).sum())),
        "right": float(energies[right][:top].sum()),
        "left": float(energies[left][:top].sum()),
        "rotation": float(torch.rad2deg(torch.asin(turned[left].clamp(max=1)))),
        "drift": float((s2[:k] - s[:k]).norm() / s[:k].norm()),
    }


def seconds(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def memory(name: str, side: str, base: BaseSpectrum, u: Tensor, vh: Tensor) -> int:
    """Peak bytes a side adds to what both start from, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base.safetensors"
        save_file({"values": base.values, "basis": base.basis, "u": u.clone(), "vh": vh.clone()}, path)
        command = [sys.executable, "-m", "tests.benchmarks.spectrum", "--peak", name, side, str(path)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak(name: str, side: str, path: str) -> None:
    weight, update = make(SHAPES[name][0])
    found = load_file(path)
    base = BaseSpectrum(SHAPES[name][0], "", found["values"], found["basis"], float(weight.norm()))
    u, vh = found["u"].clone(), found["vh"].clone()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak of getting here
    before = _status("VmRSS")
    if side == "low-rank":
        low_rank(base, weight, update)
    else:
        dense(u, base.values, vh, weight, update)
    print(_status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def share() -> None:
    """The live probe inside real runs: its seconds against those of a step, rollout included, in the same run."""
    bases: dict[str, tuple[str, str, dict[str, int]]] = {"tiny": ("tiny", "chain-sum", {"steps": 8})}
    if "RLVR_LITE_SMOLLM2" in os.environ:
        short = {"steps": 3, "prompts_per_step": 4, "group_size": 4, "max_completion_length": 64}
        bases["SmolLM2-135M"] = (os.environ["RLVR_LITE_SMOLLM2"], "gsm8k", short)
    rows = []
    for title, (base, task, sizes) in bases.items():
        for method in ("lora", "dora", "full"):
            with tempfile.TemporaryDirectory() as folder:
                run = train(
                    method,
                    base,
                    task,
                    out=Path(folder) / "run",
                    progress=False,
                    eval_problems=0,
                    spectrum_steps=1,
                    **sizes,
                )
                measured = run.metrics()
            probe = [row["spectrum/seconds"] for row in measured]
            part = [row["spectrum/seconds"] / row["step_time"] for row in measured]
            rows.append(
                {
                    "base": title,
                    "method": method,
                    "step (s)": statistics.median(row["step_time"] for row in measured),
                    "probe (s)": statistics.median(probe),
                    "every step": f"{statistics.median(part):.2%} ({min(part):.2%} to {max(part):.2%})",
                    "every 10 steps": f"{statistics.median(part) / 10:.2%}",
                }
            )
    note = "Median over the steps of one run, wall time of one process; lora from its factors, the others dense."
    print(Table.of(rows, title="Live probe: share of a training step", note=note))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--float32", action="store_true", help="also the dense path in fp32, which is less exact")
    parser.add_argument("--share", action="store_true", help="the live probe inside real runs, against their steps")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        peak(*options.peak)
        return
    if options.share:
        share()
        return
    rows, probes, updates = [], {}, []
    total: dict[str, float] = {}
    worst = 0.0
    for name, (shape, per_layer) in SHAPES.items():
        weight, update = make(shape)
        count = per_layer * LAYERS
        start = time.process_time()
        base = decompose(weight)
        once = time.process_time() - start
        (u, vh), s = singular_vectors(base, weight), base.values
        ours, theirs = low_rank(base, weight, update), dense(u, s, vh, weight, update)
        worst = max([worst, *(abs(ours[key] / theirs[key] - 1) for key in ours)])
        times = {
            "low-rank": seconds(lambda: low_rank(base, weight, update), 3 * options.repeats),  # noqa: B023
            "dense": seconds(lambda: dense(u, s, vh, weight, update), options.repeats),  # noqa: B023
        }
        if options.float32:
            single = (u.float(), s.float(), vh.float(), weight, update)
            times["dense fp32"] = seconds(lambda: dense(*single, dtype=torch.float32), options.repeats)  # noqa: B023
        bytes_ = {side: memory(name, side, base, u, vh) for side in ("low-rank", "dense")}
        row = {"matrix": name, "shape": f"{shape[0]}x{shape[1]}", "count": count, "base once (s)": once}
        row |= {f"{side} (s)": value for side, value in times.items()} | {
            "dense / low-rank": times["dense"] / times["low-rank"]
        }
        rows.append(row | {f"{side} MB": value / 1e6 for side, value in bytes_.items()})
        for key, value in {**times, "base": once}.items():
            total[key] = total.get(key, 0) + count * value
        probes[name] = probe_base(weight)
        updates += [Update(name, weight, update.factors)] * count
    print(
        Table.of(
            rows, f"One update of rank {RANK}: CPU seconds of one thread, fp64, median of {options.repeats} or more"
        )
    )
    print(
        f"\n196 matrices, by multiplication: base once {total['base']:.0f} s, low-rank {total['low-rank']:.1f} s, ",
        end="",
    )
    print(f"dense {total['dense']:.0f} s: {total['dense'] / total['low-rank']:.0f}x", end="")
    print(
        f" (dense in fp32 {total['dense fp32']:.0f} s: {total['dense fp32'] / total['low-rank']:.0f}x)"
        if options.float32
        else ""
    )
    print(f"largest relative difference of the two sides' measures: {worst:.1e}")
    probe = SpectrumProbe(probes)
    held = sum(b.left_top.numel() + b.right_top.numel() for b in probes.values()) * 4
    print(f"live probe: {seconds(lambda: probe.measure(updates), options.repeats):.2f} s for all 196 matrices", end="")
    print(f" ({held / 1e6:.0f} MB for one of each shape)")


if __name__ == "__main__":
    main()

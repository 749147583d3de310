"""Every method of the paper in every form it can leave in: how far from the trained policy, and how large.

``python -m tests.benchmarks.export tiny`` trains each method for ten steps on the embedded base and exports it.
``python -m tests.benchmarks.export smollm2 [METHODS]`` moves each method on SmolLM2-135M-Instruct (RLVR_LITE_SMOLLM2) at
random until the policy is about 0.01 nats a token from its base, which is what a short run does, and exports it.

With ``xllamacpp`` installed the GGUF files also go through llama.cpp, on the same 20 prompts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import rlvr_lite
from rlvr_lite import bases, methods
from rlvr_lite.errors import UserError
from rlvr_lite.exports import _reference as reference
from rlvr_lite.exports._reference import answer, distance, logits
from rlvr_lite.table import Table
from rlvr_lite.training import Run
from tests.exports.helpers import FOURTEEN, about, made_run

FORMS = (("adapter", None), ("lora", None), ("merged", "fp32"), ("merged", "bf16"), ("gguf", "fp16"), ("gguf", "q8_0"))
EFFECT = 0.01


def trained(method: str, folder: Path) -> Run:
    """A real run of ten steps at the method's own settings."""
    return rlvr_lite.train(method, out=folder, steps=10, eval_problems=0, progress=False)


def moved(method: str, folder: Path) -> Run:
    """A run on SmolLM2 whose policy is :data:`EFFECT` nats a token from the base's."""
    name = os.environ["RLVR_LITE_SMOLLM2"]
    rate = methods.learning_rate(method, "small").value
    steps = _steps_to_effect(name, method, rate)
    return made_run(folder, method, name, steps=steps, prompt_style="bare", prompts=2)


def _steps_to_effect(name: str, method: str, rate: float) -> float:
    """By halving on a log scale between a step too small and one too large, found as if KL rose with its square."""
    base = bases.load(name, "fp32", device="cpu")
    prompts = ["<|im_start|>user\n3+4-2=?<|im_end|>\n<|im_start|>assistant\n"]
    asked, said = answer(base.model, base.tokenizer, prompts)
    model = methods.attach(base.model, method, rlvr_lite.AdapterConfig(), total_steps=40, seed=0)
    starts = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    steps, small, large = 8.0, 0.0, math.inf
    for _ in range(12):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for n, p in model.named_parameters():
                if n in starts:
                    p.copy_(starts[n] + steps * rate * torch.randn(p.shape, generator=generator))
        apart = distance(said, logits(model, asked.ids, asked.answers)).kl
        if EFFECT / 3 < apart < EFFECT * 3:
            break
        small, large = (steps, large) if apart < EFFECT else (small, steps)
        if small and large < math.inf:
            steps = math.sqrt(small * large)
        else:
            steps *= min(30.0, max(1 / 30, math.sqrt(EFFECT / max(apart, 1e-12))))
    return steps


def through_llama_cpp(folder: Path) -> float | None:
    """Share of the 20 prompts whose greedy answer llama.cpp gives token by token; ``None`` where it is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    import xllamacpp

    asked = json.loads((folder / "reference.json").read_text())
    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel = str(folder / about(folder)["file"]), 512, 1
    options.cpuparams.n_threads, options.warmup, options.verbosity = 1, False, 0
    server, same = xllamacpp.Server(options), 0
    for prompt, expected in zip(asked["prompts"], asked["answers"], strict=True):
        wish = {"prompt": prompt, "n_predict": len(expected), "temperature": 0, "n_probs": 1, "logprobs": 1}
        said = server.handle_completions(wish)
        same += [token["id"] for token in said["choices"][0]["logprobs"]["content"]] == expected
    return same / len(asked["prompts"])


def measure(
    method: str, make: Callable[[str, Path], Run], folder: Path, forms: Sequence[tuple[str, str | None]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of distances and a row of sizes."""
    run = make(method, folder / "run")
    cells: dict[str, Any] = {"method": method}
    sizes: dict[str, Any] = {"method": method, "run's adapter": _megabytes(run.files.adapter)}
    for to, dtype in forms:
        label = to if dtype is None else f"{to} {dtype}"
        try:
            out = run.export(to, folder / "out", dtype=dtype, force=True, progress=False)  # type: ignore[arg-type]
        except UserError:
            cells[label] = sizes[label] = "none"
            continue
        facts = about(out)
        cells.setdefault("KL of training", f"{facts['effect']['kl']:.1e}")
        found = facts["measured"]
        lost = math.sqrt(found["kl"] / facts["effect"]["kl"])
        cells[label] = f"{found['logits']:.1g} / {found['greedy']:.1%} / {lost:.1%}"
        if to == "lora" and not facts["exact"]:
            cells[label] += f" (r {facts['rank']}, {facts['error']:.0%} of the norm lost)"
        elif to == "lora":
            cells[label] += f" (r {facts['rank']})"
        if to == "gguf":
            share = through_llama_cpp(out)
            cells[label] += "" if share is None else f" / {share:.0%}"
        sizes[label] = _megabytes(out)
        shutil.rmtree(out)
    return cells, sizes


def _megabytes(folder: Path) -> float:
    weights = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".gguf")]
    return round(sum(path.stat().st_size for path in weights) / 1e6, 3)


def main() -> None:
    """Measure and print."""
    makers = {"tiny": trained, "smollm2": moved}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("base", choices=list(makers))
    options.add_argument("methods", nargs="?", default=",".join(FOURTEEN), help="separated by commas")
    given = options.parse_args()
    torch.set_num_threads(1)
    make = makers[given.base]
    forms = FORMS
    if make is moved:  # 135M parameters on one thread: fewer prompts, and one GGUF type
        forms, reference.PROMPTS, reference.TOKENS = FORMS[:-1], 4, 8
    started, rows, sizes = time.process_time(), [], []
    for method in given.methods.split(","):
        with tempfile.TemporaryDirectory(prefix="rlvr-lite-export-") as folder:
            row, size = measure(method, make, Path(folder), forms)
        print(row, size, flush=True)
        rows.append(row)
        sizes.append(size)
    note = "Largest logit difference / greedy tokens that agree / effect of training lost; GGUF also: prompts on which "
    note += "llama.cpp gives the very same answer."
    print(
        Table.of(rows, note=note).to_markdown(), note, Table.of(sizes, note="Weights in MB.").to_markdown(), sep="\n\n"
    )
    print(f"{time.process_time() - started:.0f} CPU s")


if __name__ == "__main__":
    main()

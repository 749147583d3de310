"""Unsloth's own code against transformers, on a CPU: the parity table of the README.

``python -m tests.benchmarks.unsloth_parity``, in an environment made by ``tests/unsloth/install.sh``; some three minutes.
Both backends load the same small random Qwen2 in fp32, attach each of the paper's methods at rank 4 and move its trained
tensors by the same noise. Compared are the logits of prompts and completions, the gradients of the trainer's loss, and
greedy tokens from the sampler, over padded prompts and with rows that end early.
"""

from __future__ import annotations

import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from rlvr_lite.table import Table
from tests.models import random_qwen2
from tests.unsloth.parity import PAPER, compare, run, save


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = save(random_qwen2(vocab=128), Path(name) / "qwen2")
        reference, found = (run(b, folder, Path(name) / f"{b}.pt", PAPER) for b in ("transformers", "unsloth"))
    rows = []
    for method in PAPER:
        row = compare(reference[method], found[method])
        rows.append(
            {
                "method": method,
                "route": "fused LoRA" if row["fused"] else "fused base",
                "logits, max difference": f"{row['logits']:.1e}",
                "gradients, relative": f"{row['gradients']:.1e}",
                "greedy tokens": "equal" if row["greedy"] else "differ",
            }
        )
    packages = ("unsloth", "torch", "transformers", "peft", "triton")
    print(Table.of(rows, title=", ".join(f"{p} {version(p)}" for p in packages) + f", {platform.machine()} CPU"))


if __name__ == "__main__":
    main()

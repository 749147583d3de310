"""Both backends in processes of their own, and how far apart they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from rlvr_lite.bases import EMBEDDED

__all__ = ["PAPER", "compare", "run"]

REPOSITORY = Path(__file__).resolve().parents[2]

#: The fourteen methods of arXiv 2512.23165.
PAPER = (
    *("full", "lora", "rank1", "rslora", "lora_plus", "lora_fa", "dora", "adalora", "miss"),
    *("pissa", "milora", "vera", "ia3", "ln_tuning"),
)


def save(model: Any, folder: Path) -> Path:
    """A model folder with the tokenizer of the embedded base."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED["tiny"]).save_pretrained(folder)
    return folder


def run(
    backend: str, folder: Path, out: Path, names: tuple[str, ...], module: str = "tests.unsloth.probe"
) -> dict[str, Any]:
    """What a module measured there."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UNSLOTH_", "TRITON_"))}
    command = [sys.executable, "-m", module, backend, str(folder), str(out), *names]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return torch.load(out, weights_only=True)


def compare(reference: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Largest difference of logits, relative difference of all gradients together, and whether greedy tokens agree."""
    assert reference["gradients"].keys() == found["gradients"].keys()
    ours, theirs = (torch.cat([g.flatten() for _, g in sorted(x["gradients"].items())]) for x in (found, reference))
    greedy = found["greedy"], reference["greedy"]
    return {
        "logits": float((found["logits"] - reference["logits"]).abs().max()),
        "gradients": float((ours - theirs).norm() / theirs.norm()),
        "greedy": all(torch.equal(greedy[0][name], greedy[1][name]) for name in ("free", "ended")),
        "sampled logprobs": float((greedy[0]["logprobs"] - greedy[1]["logprobs"]).abs().max()),
        "fused": found["fused"],
    }

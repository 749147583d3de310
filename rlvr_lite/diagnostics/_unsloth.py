"""Unsloth's kernels against transformers', in a process of its own: it rewrites the libraries it is imported beside."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from rlvr_lite.diagnostics._check import Finding, Skipped
from rlvr_lite.diagnostics._subject import Subject

__all__ = ["unsloth_parity"]

_CHILD = """
import unsloth
from pathlib import Path
import torch
from rlvr_lite import bases
from rlvr_lite.diagnostics._numbers import gradient
from rlvr_lite.diagnostics._subject import Subject
from rlvr_lite.host import this_host
subject = Subject(torch.device("cuda"), this_host(), Path({folder!r}))
base = bases.load({base!r}, {precision!r}, backend="unsloth")
with subject.policy(base) as model:
    torch.save(gradient(subject, model, base.compute_dtype, None), {out!r})
"""


def unsloth_parity(subject: Subject) -> Finding:
    """Gradients of a LoRA on one block of the paper's base through Unsloth, against those through transformers."""
    if find_spec("unsloth") is None:
        raise Skipped("Unsloth is not installed")
    subject.needs_card()
    from rlvr_lite.diagnostics._numbers import gradient

    base, out = subject.large(1), subject.folder / "unsloth.pt"
    with subject.policy(base) as model:
        expected = gradient(subject, model, base.compute_dtype, None)
    child = _CHILD.format(folder=str(subject.folder), base=base.name, precision=base.precision, out=str(out))
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=240, check=False)
    if not Path(out).exists():
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return Finding(last, "the same gradient", False, "take --backend transformers")
    found = torch.load(out, weights_only=True)
    apart = float((found - expected).norm() / expected.norm())
    return Finding(f"gradients differ by {apart:.1e}", "0.1", apart <= 0.1, "take --backend transformers")

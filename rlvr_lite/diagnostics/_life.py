"""Whole lives in small: one step of every method with its proof, a run that is killed, a checkpoint from elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rlvr_lite import bases, grpo, methods
from rlvr_lite.analysis.memory import Step
from rlvr_lite.config import AdapterConfig
from rlvr_lite.diagnostics._check import Finding
from rlvr_lite.diagnostics._subject import Subject
from rlvr_lite.errors import kind_and_line
from rlvr_lite.planning import Runner
from rlvr_lite.training import Run, generator_states, restore_generators, train

__all__ = ["every_method", "kill_and_resume", "other_cards"]

_STEP = Step(
    prompts=2, group_size=4, prompt_length=12, completion_length=16, micro_batch=8, rows=8, checkpointing=False
)
_RUN: dict[str, Any] = {
    "steps": 4,
    "prompts_per_step": 4,
    "group_size": 4,
    "max_completion_length": 24,
    "eval_problems": 0,
    "save_steps": 1,
    "smoke": True,
    "progress": False,
}
_SECONDS = 300  # after which the child is given up


class _Uncounted:
    """What a step tells of its memory, when nobody asks."""

    def __init__(self) -> None:
        self.peaks: dict[str, Any] = {}

    def phase(self, name: str) -> Any:
        self.peaks[name] = {}
        return contextlib.nullcontext()

    def kind(self, name: str) -> Any:
        return contextlib.nullcontext()

    def add(self, tensor: Any, kind: str | None = None) -> None:
        """Nothing."""


def every_method(subject: Subject) -> Finding:
    """One optimizer step of every method: finite, something moved, and the proof that it trains what its name says."""
    wrong, left_out, names = [], [], methods.names()
    for name in names:
        if subject.base.precision in methods.get(name).unsupported:
            left_out.append(name)
            continue
        try:
            said = _one_step(subject, name)
        except Exception as error:  # of one method is not of the others
            said = kind_and_line(error)
            subject.forget_bases()
        if said:
            wrong.append(f"{name} ({said})")
    good = len(names) - len(wrong) - len(left_out)
    figure = f"{good} of {len(names)} proven" + (
        f"; not on {subject.base.precision}: {', '.join(left_out)}" if left_out else ""
    )
    return Finding("; ".join([figure, *wrong]), "all", not wrong, "leave these methods out, and report it")


def _one_step(subject: Subject, name: str) -> str:
    """What speaks against a method after one step; empty if nothing does."""
    method = methods.get(name)
    base = bases.load("tiny", device=subject.device) if method.writes_base else subject.base
    model = methods.attach(base.model, name, AdapterConfig(), total_steps=10, seed=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    runner = Runner(model, name, base.compute_dtype, _STEP, subject.device.type, grpo.Packer(), _Uncounted())
    runner.first_pass()
    proof = methods.identity(model, name, AdapterConfig(), optimizer=runner.train())
    model.eval()
    said = list(proof.failures)
    if not all(bool(p.isfinite().all()) for p in trained):
        said.append("a weight is not finite")
    if all(map(torch.equal, before, trained)):
        said.append("no weight moved")
    if not method.writes_base:
        methods.detach(model)
    return "; ".join(said)


def kill_and_resume(subject: Subject) -> Finding:
    """A run that is killed after its first checkpoint and called again, against the one that was left alone."""
    whole = train("lora", subject.base, "chain-sum", out=subject.folder / "whole", **_RUN)
    torn = subject.folder / "torn"
    killed = _killed(torn, str(subject.device), subject.base.precision)
    resumed = train("lora", subject.base, "chain-sum", out=torn, **_RUN)
    files = [run.files.adapter / "adapter_model.safetensors" for run in (whole, resumed)]
    one, other = (load_file(file) for file in files)
    apart = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
    same = files[0].read_bytes() == files[1].read_bytes() and _drawn(whole) == _drawn(resumed)
    done = whole.status == resumed.status == "done"
    figure = f"killed after {killed} of {_RUN['steps']} steps; " + (
        "the same bytes" if same else f"apart by {apart:.1e}"
    )
    limit = "done" if subject.card else "the same bytes"  # sums of a card may come in another order
    if not killed:
        return Finding(
            "the run could not be killed: it had saved nothing", limit, False, "try again on an idle machine"
        )
    return Finding(figure, limit, done and (same or subject.card), "report it, with both folders")


def _drawn(run: Run) -> list[Any]:
    return [row["completion"] for row in run.rollouts()]


def _killed(out: Path, device: str, precision: str) -> int:
    """Train in a process of its own, which gets SIGKILL once its first checkpoint is there; steps that it had saved."""
    said = f"import rlvr_lite.diagnostics._life as life; life.child({str(out)!r}, {device!r}, {precision!r})"
    child = subprocess.Popen([sys.executable, "-c", said], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    while child.poll() is None and not _saved(out) and time.monotonic() - started < _SECONDS:
        time.sleep(0.005)
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return max(_saved(out), default=0)


def child(out: str, device: str, precision: Any) -> None:
    """The run that is to be killed."""
    torch.set_num_threads(1)
    train("lora", bases.load("tiny", precision, device=device), "chain-sum", out=out, **_RUN)


def _saved(out: Path) -> list[int]:
    found = (out / "checkpoints").glob("checkpoint-*/manifest.json")
    return [int(path.parent.name.rpartition("-")[2]) for path in found]


def other_cards(subject: Subject) -> Finding:
    """Random states saved on two cards more are taken back: those of the cards that are here, and no other."""
    states = generator_states()
    more = torch.get_rng_state()
    saved = states | {"cuda": [*states.get("cuda", []), more, more]}
    drawn = torch.rand(3, device=subject.device)
    restore_generators(saved)
    same = torch.equal(drawn, torch.rand(3, device=subject.device))
    return Finding(
        f"{len(saved['cuda'])} states, {subject.host.cards} cards", "taken back", same, "resume on as many cards"
    )

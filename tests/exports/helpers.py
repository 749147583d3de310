"""Runs on disk without a training loop: a method on a base, moved off its start as training would move it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from rlvr_lite import bases, evaluation, methods, tasks
from rlvr_lite.config import RunConfig, to_json
from rlvr_lite.records import read_json, write_json, write_text
from rlvr_lite.runs import RunDirectory, finish
from rlvr_lite.training import Run
from tests.models import move, random_qwen2

#: The paper's methods, as they are exported.
FOURTEEN = ("full", "lora", "rank1", "rslora", "lora_plus", "lora_fa", "dora", "adalora", "miss", "pissa", "milora")
FOURTEEN += ("vera", "ia3", "ln_tuning")
#: Learning steps of Adam that a short run takes: every trained number moves by about this many rates.
STEPS = 8


def made_run(out: Path, method: str = "lora", base: str = "tiny", *, steps: int = STEPS, **changes: Any) -> Run:
    """A finished run whose adapter has taken ``steps`` signed steps at the method's own learning rate."""
    shown = changes.pop("prompts", 8)
    found = bases.load(base, changes.pop("precision", "fp32"), device="cpu")
    asked = RunConfig(method=method, base=base, precision=found.precision, **changes)
    size = methods.resolve(method, asked.adapter, found.scale)
    config = dataclasses.replace(
        asked,
        rank=size.rank if "rank" in methods.get(method).uses else None,
        alpha=size.alpha,
        targets=size.targets,
        steps=40,
        learning_rate=methods.learning_rate(method, found.scale).value,
        prompt_style=asked.prompt_style or "bare",
        max_completion_length=24,
    )
    model = methods.attach(found.model, method, asked.adapter, total_steps=40, seed=0)
    move(model, steps * (config.learning_rate or 0.0))
    out.mkdir(parents=True)
    write_text(out / "config.json", to_json(config))
    hashed = methods.base_hash(bases.load(base, found.precision, device="cpu").model)
    write_json(out / "env.json", {"base": {"name": base, "revision": found.revision, "hash": hashed}})
    task = tasks.get(config.task)
    prompts = [task.messages(problem, config.prompt_style) for problem in task.problems("test", shown)]
    said = evaluation.fingerprint(model, found.tokenizer, prompts, found.precision)
    methods.save(model, out / "adapter", facts={"fingerprint": said})
    score = {"greedy": {"value": 0.5, "low": 0.4, "high": 0.6}, "avg@8": {"value": 0.45, "low": 0.4, "high": 0.5}}
    score |= {"problems": 100}  # type: ignore[dict-item]
    summary = {"status": "done", "reason": "", "method": method, "steps": 40, "trainable_parameters": 123}
    summary |= {"identity": "proven", "parity": 0.0, "versions": {"torch": "2"}}
    finish(RunDirectory(out), summary | {"evaluation": {"before": score, "after": score}})
    return Run(out)


def failed(run: Run, reason: str = "2 of 4 trained tensors never had a gradient") -> Run:
    summary = run.summary | {"status": "failed", "reason": reason, "identity": f"failed: {reason}"}
    finish(run.files, summary)
    return run


def about(export: Path) -> dict[str, Any]:
    return read_json(export / "export.json")


def random_base(folder: Path, **shape: Any) -> Path:
    """A random Qwen2 on disk with the embedded base's tokenizer."""
    random_qwen2(vocab=128, **shape).save_pretrained(folder)
    bases.load("tiny").tokenizer.save_pretrained(folder)
    return folder


def greedy(model: torch.nn.Module, ids: list[int], count: int) -> list[int]:
    """Greedy tokens without any cache or batching of ours."""
    row = list(ids)
    with torch.no_grad():
        for _ in range(count):
            row.append(int(model(input_ids=torch.tensor([row])).logits[0, -1].argmax()))
    return row[len(ids) :]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

"""Studies on disk that nobody trained: the files a run leaves, with outcomes drawn from a seed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_lite.config import RunConfig, to_json
from rlvr_lite.evaluation import Score
from rlvr_lite.records import write_json
from rlvr_lite.runs import RunDirectory, finish
from rlvr_lite.study import Design, Study, Trial, Variant
from rlvr_lite.study._store import Store

VERSIONS = {"python": "3.11.7", "rlvr-lite": "0.1.0", "torch": "2.13.0"}


def make_design(methods: Mapping[str, Any] | Sequence[str], **changes: Any) -> Design:
    """Rows of these names; a mapping says the method of each."""
    entries = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    variants = tuple(Variant(label, {"method": method}) for label, method in entries.items())
    shared = RunConfig(eval_problems=60, eval_k=4, steps=20, prompts_per_step=4, group_size=4)
    facts = {"shared": shared, "scale": "tiny", "seeds": (0, 1), "reference": variants[0].label}
    return Design(variants, **(facts | changes))


def make_study(
    root: Path,
    design: Design,
    *,
    skill: Mapping[str, float] | None = None,
    failing: Mapping[str, str] | None = None,
    until: int | None = None,
) -> Study:
    """A study with these outcomes.

    Args:
        root: its directory.
        design: what is compared.
        skill: chance of a right answer by label, at the best learning rate; 0.4 where nothing is said.
        failing: error of every run of a row by label.
        until: trials that are done; all by default.
    """
    store = Store(root)
    store.open(design)
    done = 0
    while True:
        trials = design.known(store.accuracies(design))
        fresh = [trial for trial in trials if store.state(trial) == "open"]
        if not fresh or (until is not None and done >= until):
            return Study(root, design)
        for trial in fresh[: None if until is None else until - done]:
            done += 1
            if trial.variant in (failing or {}):
                store.fail(trial, (failing or {})[trial.variant])
            else:
                chance = (skill or {}).get(trial.variant, 0.4 if trial.variant else 0.2)
                if trial.stage == "search":  # best at 10^-2.5
                    chance *= math.exp(-((math.log10(trial.config.learning_rate or 1.0) + 2.5) ** 2) / 2)
                write(store, trial, chance)


def write(store: Store, trial: Trial, skill: float) -> None:
    """What a finished trial leaves, with this chance of a right answer."""
    folder, config = store.path(trial), trial.config
    (folder / "eval").mkdir(parents=True)
    rng = np.random.default_rng(list(trial.key.encode()))
    when = "before" if trial.stage == "base" else "after"
    _answers(folder / "eval" / f"{when}.jsonl", config, skill, rng)
    score = Score.read(folder / "eval" / f"{when}.jsonl", when).to_dict()
    if trial.stage == "base":
        finish(RunDirectory(folder), {"status": "done", "reason": "", "evaluation": {when: score}})
        return
    steps = config.steps or 1
    (folder / "config.json").write_text(to_json(dataclasses.replace(config, rank=16)), encoding="utf-8")
    (folder / "adapter").mkdir()
    size = 400 * round(10 ** (0.25 * (sum(trial.variant.encode()) % 13)))
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(bytes(size))
    rewards = [
        {
            "step": step + 1,
            "reward": float(np.clip(0.2 + (skill - 0.2) * step / steps + rng.normal(0, 0.06), 0, 1)),
            "tokens/sampled": 640.0,
            "step_time": 0.3,
        }
        for step in range(steps)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewards), encoding="utf-8")
    environment = {"base": {"name": config.base, "revision": "abc", "hash": "def"}, "versions": VERSIONS}
    machine = {"platform": "Linux", "processor": "x86_64", "cores": 2, "threads": 1, "device": "cpu"}
    write_json(folder / "env.json", {"asked": {}, **environment, **machine})
    finish(
        RunDirectory(folder),
        {
            "status": "done",
            "reason": "",
            "method": config.method,
            "seed": config.seed,
            "steps": steps,
            "learning_rate": config.learning_rate,
            "trainable_parameters": size // 4,
            "evaluation": {"after": score},
            "identity": "proven",
            "parity": 5.8e-8,
            "seconds": {"load": 0.5, "evaluate after": 4.0, "train": 6.0 + len(trial.variant), "step": 0.3},
            "peak_memory_bytes": (500 + 7 * (sum(trial.variant.encode()) % 17)) * 2**20,
            "versions": VERSIONS,
        },
    )


def _answers(path: Path, config: RunConfig, skill: float, rng: np.random.Generator) -> None:
    hard = np.linspace(-0.2, 0.2, config.eval_problems)
    lines = []
    for number, shift in enumerate(hard):
        for index in (-1, *range(config.eval_k)):
            right = bool(rng.random() < np.clip(skill + shift, 0, 1))
            answer = {"id": f"p{number:03}", "index": index, "completion": "", "extracted": str(right)}
            facts = {"correct": right, "how": "number", "tokens": 5, "truncated": False}
            lines.append(json.dumps(answer | facts) + "\n")
    path.write_text("".join(lines), encoding="utf-8")

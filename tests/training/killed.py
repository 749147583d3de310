"""Runs a training again and again, each time killed at another moment: ``python -m tests.training.killed OUT N SEED``.

Prints one JSON object: how often the run that was killed and started again ended with the bytes of the run that was
left alone. Children are forked from one process, so that only the first pays for the imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlvr_lite import records
from rlvr_lite.training import GRPOTrainer, train
from rlvr_lite.training import _checkpoints as checkpoints

warnings.simplefilter("ignore")
torch.set_num_threads(1)

SETTINGS: dict[str, Any] = {
    "steps": 6,
    "prompts_per_step": 3,
    "group_size": 4,
    "eval_problems": 3,
    "eval_k": 2,
    "save_steps": 2,
    "max_resample": 1,
    "max_completion_length": 24,
}


class Fuse:
    """Counts moments; at the chosen one the process kills itself, as a power cut would."""

    def __init__(self, moment: int | None):
        self.moment, self.count = moment, 0

    def tick(self) -> None:
        if self.count == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def around(self, owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def fused(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            result = original(*args, **kwargs)
            self.tick()
            return result

        setattr(owner, name, fused)

    def lay(self) -> None:
        """At every write, and between any two phases of a step."""
        for name in ("replace", "fsync", "rename"):
            self.around(os, name)
        for name in ("_collect", "accumulate", "_compute_loss", "log", "_save_checkpoint", "note_gradients"):
            self.around(GRPOTrainer, name)
        self.around(checkpoints, "write_state")
        self.around(torch.optim.AdamW, "step")
        fuse, append = self, records.JsonLines.append

        def torn(log: records.JsonLines, *rows: Any) -> None:
            fuse.tick()
            if fuse.count == fuse.moment:
                with open(log.path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[0])[:7])  # half a line
            fuse.tick()
            append(log, *rows)

        records.JsonLines.append = torn  # type: ignore[method-assign]


def run(out: Path, moment: int | None) -> int | None:
    """Train in a forked child; the number of moments, or ``None`` if it was killed."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        if "KILLED_VERBOSE" not in os.environ:
            os.dup2(quiet, 2)
        fuse = Fuse(moment)
        fuse.lay()
        train("lora", "tiny", "chain-sum", out=out, progress=False, **SETTINGS)
        os.write(send, str(fuse.count).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return int(text) if text else None


def outcome(out: Path) -> dict[str, Any]:
    """What two runs that are the same have in common: weights, rollouts, scores, and metrics but for the clock."""
    clocks = ("time", "seconds", "per_second", "runtime")
    metrics = [
        {key: value for key, value in row.items() if not any(clock in key for clock in clocks)}
        for row in records.read_jsonl(out / "metrics.jsonl")
    ]
    weights = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    scores = [
        {key: value for key, value in records.read_json(out / "eval" / f"{when}.json").items() if key != "seconds"}
        for when in ("before", "after")
    ]
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "rollouts": hashlib.sha256((out / "rollouts.jsonl").read_bytes()).hexdigest(),
        "metrics": metrics,
        "scores": scores,
        "identity": records.read_json(out / "identity.json"),
        "status": records.read_json(out / "summary.json")["status"],
    }


def main(out: Path, trials: int, seed: int) -> None:
    """Kill ``trials`` runs at random moments and compare each with the one that was left alone."""
    moments = run(out / "whole", None)
    assert moments is not None
    expected = outcome(out / "whole")
    equal, killed, differing = 0, 0, []
    for moment in random.Random(seed).sample(range(moments), min(trials, moments)):
        folder = out / f"killed-{moment}"
        killed += run(folder, moment) is None
        run(folder, None)
        same = outcome(folder) == expected
        equal += same
        if same:
            shutil.rmtree(folder)
        else:
            differing.append(moment)
    print(json.dumps({"moments": moments, "killed": killed, "equal": equal, "differing": differing}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

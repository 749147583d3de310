"""One study killed again and again: ``python -m tests.study.killed OUT TIMES SEED``.

Prints one JSON object: how often it was killed, and whether it ended with the bytes of the study that was left alone.
Children are forked from one process, so that only the first pays for the imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from rlvr_lite.study import Study, compare

warnings.simplefilter("ignore")
torch.set_num_threads(1)

SETTINGS: dict[str, Any] = {
    "seeds": 2,
    "steps": 4,
    "prompts_per_step": 4,
    "group_size": 8,
    "eval_problems": 6,
    "eval_k": 2,
    "max_completion_length": 24,
    "save_steps": 1,
    "progress": False,
}


def call(out: Path, limit: float | None) -> float:
    """The study in a forked child, killed after ``limit`` seconds; how long it took."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        Study.report = lambda self: None  # type: ignore[method-assign, assignment, return-value]
        compare(["lora", "ia3"], out=out, tune="none", **SETTINGS)
        os._exit(0)
    while limit is not None and time.monotonic() - started < limit:
        if os.waitpid(child, os.WNOHANG)[0]:
            return time.monotonic() - started
        time.sleep(0.01)
    if limit is not None:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - started


def board(out: Path) -> str:
    """What must be the same: the leaderboard, and every row's scores."""
    study = Study.load(out)
    assert not any(row.problem for row in study.rows.values()), study.leaderboard
    return f"{study.leaderboard}\n{[row.scores.tolist() for row in study.rows.values() if row.scores is not None]}"


def main(out: Path, times: int, seed: int) -> None:
    """Kill one study ``times`` times, let it end, and compare."""
    whole = call(out / "whole", None)
    rng = random.Random(seed)
    killed = 0
    while killed < times:
        limit = rng.uniform(0.05, 2 * whole / times)
        if call(out / "killed", limit) < limit:  # it was done before: begin another one
            if board(out / "killed") != board(out / "whole"):
                break
            os.rename(out / "killed", out / f"done-{killed}")
        else:
            killed += 1
    call(out / "killed", None)
    print(json.dumps({"killed": killed, "equal": board(out / "killed") == board(out / "whole")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

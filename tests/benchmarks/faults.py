"""What faults of the disk and of the power cost: ``python -m tests.benchmarks.faults OUT --trials 20``.

``fail`` lets the n-th fsync, rename or opening of a file in a short run fail as a full disk does; ``tails`` kills the run after its
first checkpoints and drops or zeroes the tail of a log, as a power cut drops what was not synced. The same call then
goes on. Prints how many runs ended with the bytes of the run that was left alone, and what was said.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr_lite import records
from rlvr_lite.errors import UserError
from rlvr_lite.training import train
from tests.training.killed import SETTINGS, outcome, run


class _Layer:
    """Counts what reaches the disk; the chosen one fails."""

    def __init__(self, moment: int | None):
        self.moment, self.count = moment, 0
        for name in ("replace", "fsync"):
            setattr(os, name, self._guarded(getattr(os, name)))
        records.open = self._guarded(open)  # type: ignore[attr-defined]

    def _guarded(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            return original(*args, **kwargs)

        return guarded

    def _tick(self) -> None:
        self.count += 1
        if self.count - 1 == self.moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _failing(out: Path, moment: int | None) -> tuple[int, str]:
    """A run in a forked child whose n-th write fails: how many there were, and how it ended."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        layer, said = _Layer(moment), "done"
        try:
            train("lora", "tiny", "chain-sum", out=out, progress=False, **SETTINGS)
        except UserError:
            said = "one line"
        except BaseException as error:
            said = f"raw {type(error).__name__}"
        os.write(send, json.dumps([layer.count, said]).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        count, said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return count, said


def fail(out: Path, trials: int, seed: int) -> dict[str, Any]:
    """Every write, or ``trials`` of them, fails once."""
    moments, _ = _failing(out / "whole", None)
    expected, said, equal = outcome(out / "whole"), Counter[str](), 0
    for moment in random.Random(seed).sample(range(moments), min(trials, moments)):
        folder = out / f"failed-{moment}"
        said[_failing(folder, moment)[1]] += 1
        run(folder, None)
        equal += outcome(folder) == expected
        shutil.rmtree(folder)
    return {"writes": moments, "failed": sum(said.values()), "equal": equal, "said": dict(said)}


def tails(out: Path, trials: int, seed: int) -> dict[str, Any]:
    """A run that is killed loses the tail of a log, or gets zeros for it."""
    moments = run(out / "whole", None)
    assert moments is not None
    expected, equal, rng = outcome(out / "whole"), 0, random.Random(seed)
    for trial in range(trials):
        folder = out / f"tail-{trial}"
        run(folder, rng.randrange(moments))
        path = folder / rng.choice(["metrics.jsonl", "rollouts.jsonl"])
        if path.exists():
            data = path.read_bytes()
            kept = rng.randrange(len(data) + 1)
            path.write_bytes(data[:kept] + bytes((len(data) - kept) * rng.randrange(2)))
        run(folder, None)
        equal += outcome(folder) == expected
        shutil.rmtree(folder)
    return {"dropped": trials, "equal": equal}


def main() -> None:
    """Run both and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for job in (fail, tails):
        print(json.dumps({job.__name__: job(asked.out / job.__name__, asked.trials, asked.seed)}), flush=True)


if __name__ == "__main__":
    main()

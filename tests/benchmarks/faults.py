"""What faults of the disk, of the power and of processes cost: ``python -m tests.benchmarks.faults OUT``.

Each job (``train``, ``eval``, ``export``, ``compare``) is short and is done once undisturbed. Then it is done again for every
operation on its files: ``fail`` (a full disk), ``tear`` (half a write), ``kill`` (the process is gone), ``cut`` (the power is
gone, and with it all that was not synced, names too) and ``names`` (the same, but names stay and files have zeros). The same
call then goes on; it has to end with the same bytes, and no fault may show as anything but one line. What ``kill``, ``cut``
and ``names`` leave is taken from one run, before each of its operations, and equal states are tried once. Outcomes are kept in
OUT, so that a call that was stopped goes on.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from rlvr_lite import bases, records
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import evaluate
from rlvr_lite.exports import export
from rlvr_lite.study import compare
from rlvr_lite.table import Table
from rlvr_lite.training import train
from tests.disk import Disk, Fault, State, lay
from tests.study.killed import board
from tests.training.killed import outcome


def variety(completions: list[Any], **_: Any) -> list[float]:
    """A reward that differs inside of every group, so that two steps are enough for the proof."""
    return [float(len(set(chat[0]["content"]))) for chat in completions]


SETTINGS: dict[str, Any] = {
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 4,
    "eval_problems": 2,
    "eval_k": 1,
    "save_steps": 1,
    "max_completion_length": 8,
    "rewards": [variety],
    "progress": False,
}
_FORMS = ("adapter", "lora", "merged", "gguf")


def _problems(out: Path) -> str:
    """A task of few rows, so that a run is short."""
    path = out / "sums.jsonl"
    if not path.exists():
        rows = [{"prompt": f"{i} + {i + 1} = ?", "answer": str(2 * i + 1)} for i in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _digest(folder: Path, *clocks: str) -> dict[str, str]:
    """Hashes of the files of a folder, those that hold a clock left out."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in clocks)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class _Jobs:
    """What is done, and what two that are the same have in common."""

    def __init__(self, out: Path):
        self.out, self.run, self.task, self.base = out, out / "run", _problems(out), None
        self.names: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
            "train": (self._train, outcome),
            "eval": (self._eval, partial(_digest)),
            "compare": (self._compare, board),
        }
        for form in _FORMS:
            self.names[f"export {form}"] = (partial(self._export, form=form), partial(_digest))

    def prepare(self) -> None:
        """The run that is evaluated and exported; children find its base and all modules loaded."""
        shutil.rmtree(self.out / "warm", ignore_errors=True)
        self.base = bases.load("tiny")
        self._train(self.out / "warm")
        self._train(self.run)
        gc.collect()
        gc.freeze()

    def _train(self, out: Path) -> None:
        train("lora", self.base, self.task, out=out, **SETTINGS)

    def _eval(self, out: Path) -> None:
        evaluate(self.run, f"own={self.task}", k=2, n=6, max_completion_length=8, out=out, progress=False)

    def _export(self, out: Path, form: Any) -> None:
        export(self.run, form, out / form, progress=False, wait=True)

    def _compare(self, out: Path) -> None:
        compare(["lora", "ia3"], "tiny", self.task, out=out, seeds=1, tune="none", **SETTINGS)


def _begin_child() -> None:
    """A forked process leaves its parent's objects alone and says nothing."""
    gc.disable()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


def _child(work: Callable[[], Any]) -> tuple[str, Any]:
    """Work in a forked process: how it ended (``done``, ``one line``, ``killed``, ``raw``), and what it said or gave back."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        _begin_child()
        try:
            said = ["done", work()]
        except UserError as error:
            said = ["one line", str(error)]
        except BaseException:
            said = ["raw", traceback.format_exc()]
        with os.fdopen(send, "w") as pipe:
            pipe.write(json.dumps(said))
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return tuple(json.loads(text)) if text else ("killed", None)


def _under(disk: Disk, job: Callable[[Path], Any], out: Path) -> list[str]:
    with disk:
        job(out)
    return disk.done


def _trial(job: Callable[[Path], Any], out: Path, fault: Fault, moment: int) -> dict[str, str]:
    """The job with a fault, and then once more without."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    first = _child(lambda: _under(Disk(out, fault, moment), job, out))
    again = _child(lambda: job(out))
    return {
        "first": first[0],
        "said": str(first[1])[-3000:] if first[0] in ("raw", "one line") else "",
        **_ended(again),
    }


def _two(job: Callable[[Path], Any], out: Path, rng: random.Random, whole: float) -> dict[str, str]:
    """Two processes at once, one or both of them killed, and then once more."""
    shutil.rmtree(out, ignore_errors=True)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            _begin_child()
            try:
                job(out)
            except BaseException:
                os._exit(3)
            os._exit(0)
        children.append(child)
    for child in children[: rng.choice((1, 2))]:
        time.sleep(rng.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    again = _child(lambda: job(out))
    return {"first": "raw" if 3 in codes else "killed" if -9 in codes else "done", "said": "", **_ended(again)}


def _ended(again: tuple[str, Any]) -> dict[str, str]:
    return {"again": again[0], "why": "" if again[0] == "done" else str(again[1])[-3000:]}


def _states(job: Callable[[Path], Any], place: Path, fault: Fault) -> list[dict[str, str | None]]:
    """What the fault leaves before each operation of one and the same undisturbed run: names, and hashes of contents."""
    index, store, out = place / f"{fault}.json", place / "contents", place / "again"
    if not index.exists():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        store.mkdir(exist_ok=True)
        found: list[dict[str, str | None]] = []

        def keep(state: State) -> None:
            found.append({name: _kept(store, content) for name, content in state.items()})

        ended, said = _child(lambda: _under(Disk(out, fault, before=keep), job, out) and found)
        assert ended == "done", said
        records.write_json(index, said)
    return records.read_json(index)


def _kept(store: Path, content: bytes | None) -> str | None:
    """Contents under their hashes, so that what many states share is kept once."""
    if content is None:
        return None
    name = hashlib.sha256(content).hexdigest()
    if not (store / name).exists():
        (store / name).write_bytes(content)
    return name


def _left(job: Callable[[Path], Any], place: Path, state: dict[str, str | None]) -> dict[str, str]:
    """The job in a folder as a fault left it; the process that was in it is gone."""
    out, store = place / "again", place / "contents"
    out.mkdir(exist_ok=True)
    lay(out, {name: None if kept is None else (store / kept).read_bytes() for name, kept in state.items()})
    return {"first": "killed", "said": "", **_ended(_child(lambda: job(out)))}


def faults(jobs: _Jobs, out: Path, name: str, fault: Fault, trials: int | None, seed: int) -> dict[str, Any]:
    """A job under one kind of fault, at every operation or at ``trials`` of them; what is known already is not repeated."""
    job, same = jobs.names[name]
    place, log = out / name.replace(" ", "-"), records.JsonLines(out / f"{name.replace(' ', '-')}-{fault}.jsonl")
    whole = place / "whole"
    if not (place / "count.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        whole.mkdir(parents=True)
        ended, done = _child(lambda: _under(Disk(whole), job, whole))
        assert ended == "done", done
        records.write_json(place / "count.json", done)
    operations, expected = records.read_json(place / "count.json"), same(whole)
    moments = [n for n, what in enumerate(operations) if fault != "tear" or what in ("write", "tensors")]
    if trials is not None:
        moments = random.Random(seed).sample(moments, min(trials, len(moments)))
    states = _states(job, place, fault) if fault in ("kill", "cut", "names") else None
    assert states is None or len(states) == len(operations)
    known = {row["moment"]: row for row in log.rows()}
    seen = {row["state"]: row for row in known.values()}  # what was left is the same: so is what comes of it
    for moment in moments:
        if moment in known:
            continue
        digest = str(moment if states is None else hashlib.sha256(json.dumps(states[moment]).encode()).hexdigest())
        row = seen.get(digest)
        if row is None:
            row = _trial(job, place / "again", fault, moment) if states is None else _left(job, place, states[moment])
            row |= {"state": digest, "equal": row["again"] == "done" and same(place / "again") == expected}
        known[moment] = seen[digest] = row | {"moment": moment, "what": operations[moment]}
        log.append(known[moment])
    return _line(name, fault, len(operations), [known[moment] for moment in moments])


def full(jobs: _Jobs, small: Path, name: str, trials: int) -> dict[str, Any]:
    """A job on a file system that has room for a part of what it needs, and then once more with room for all of it."""
    job, same = jobs.names[name]
    out, rows = small / "again", []

    def room(kibibytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", small], check=True)

    def once(kibibytes: int) -> tuple[str, Any]:
        shutil.rmtree(out, ignore_errors=True)
        room(kibibytes)
        return _child(lambda: job(out))

    assert once(2**20)[0] == "done"
    expected, needed = same(out), sum(path.stat().st_blocks for path in out.rglob("*")) // 2
    for trial in range(trials):
        first = once(max(4, needed * trial // trials))
        room(2**20)
        row = {"moment": trial, "first": first[0], "said": first[1], **_ended(_child(lambda: job(out)))}
        row["equal"] = row["again"] == "done" and same(out) == expected
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return _line(name, "full file system", None, rows)


def pairs(jobs: _Jobs, out: Path, trials: int, seed: int) -> dict[str, Any]:
    """``compare`` by two processes of which one or both are killed at a random time."""
    job, same = jobs.names["compare"]
    place, log = out / "pairs", records.JsonLines(out / "pairs.jsonl")
    started = time.monotonic()
    if not (place / "whole").exists():
        place.mkdir(exist_ok=True)
        assert _child(lambda: job(place / "whole"))[0] == "done"
    whole, expected = time.monotonic() - started, same(place / "whole")
    rows = log.rows()
    for trial in range(len(rows), trials):
        row = {"moment": trial, **_two(job, place / "again", random.Random(f"{seed}-{trial}"), max(whole, 20.0))}
        row["equal"] = row["again"] == "done" and same(place / "again") == expected
        log.append(row)
        rows.append(row)
    return _line("compare", "kill of two", None, rows[:trials])


def _line(name: str, fault: str, operations: int | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ended = Counter(row["first"] for row in rows)
    return {
        "job": name,
        "fault": fault,
        "operations": operations,
        "trials": len(rows),
        "different": len({row.get("state", row["moment"]) for row in rows}),
        "one line": ended["one line"],
        "raw": ended["raw"],
        "killed": ended["killed"],
        "did not matter": ended["done"],
        "same bytes after": sum(row["equal"] for row in rows),
    }


def main() -> None:
    """Do what is named and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--job", nargs="+", default=["train"], help="train, eval, compare, pairs, or export FORM")
    parser.add_argument("--fault", nargs="+", default=list(get_args(Fault)), choices=get_args(Fault))
    parser.add_argument("--small", type=Path, help="a tmpfs (as root): only fill it, at --trials sizes")
    parser.add_argument("--trials", type=int, help="of each; by default one an operation")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    jobs, lines = _Jobs(out), []
    jobs.prepare()
    for name in asked.job:
        if asked.small:
            lines.append(full(jobs, asked.small, name, asked.trials or 8))
            continue
        if name == "pairs":
            lines.append(pairs(jobs, out, asked.trials or 20, asked.seed))
            continue
        lines += [faults(jobs, out, name, fault, asked.trials, asked.seed) for fault in asked.fault]
    print(Table.of(lines).to_markdown())


if __name__ == "__main__":
    main()

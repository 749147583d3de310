"""Every operation on files of a short run fails, is torn, or is the last one: the same call goes on to the same end.

The run is one without a model: logs, checkpoints with tensors, and the manifest that makes it whole, as training writes
them. ``python -m tests.benchmarks.faults`` does the same to real runs.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest
import torch

from rlvr_lite.errors import UserError
from rlvr_lite.records import hash_file, make_folder, write_json
from rlvr_lite.runs import RunDirectory, RunRecord, finish, sweep, writer
from rlvr_lite.training import _checkpoints as checkpoints
from tests.disk import Disk, Fault


def _go(root) -> None:
    """Two steps, each logged, synced and saved; what was done before is not done again."""
    files = RunDirectory(root)
    with writer(files.lock, "training"):
        if files.config.exists() and RunRecord(root).settled:
            return
        sweep(root, files.checkpoints)
        write_json(files.config, {"method": "lora"})
        log, newest = files.metrics, checkpoints.newest_good(make_folder(files.checkpoints))
        done = 0 if newest is None else checkpoints.read(newest, "logs")
        log.cut(log.whole(done["bytes"]) if done else 0)
        for step in range(done["step"] + 1 if done else 1, 3):
            log.append({"step": step})
            log.sync()
            state = {"logs": {"step": step, "bytes": log.position}, "trained": {"a": torch.full((8,), float(step))}}
            checkpoints.write(files.checkpoints / f"checkpoint-{step}", state, "{}", policy=lambda folder: None)
        write_json(files.identity, {"trained": "all"})
        finish(files, {"status": "done", "reason": ""})


def _outcome(root) -> dict[str, str]:
    assert RunRecord(root).damage() is None
    return {str(p.relative_to(root)): hash_file(p) for p in sorted(root.rglob("*")) if p.is_file()}


def _killed(work) -> None:
    """Work in a forked process, which a fault ends."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _under(disk: Disk, root) -> None:
    with disk:
        _go(root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    disk = Disk(root)
    _under(disk, root)
    return len(disk.done), _outcome(root)


@pytest.mark.parametrize(
    "fault", ["fail", "tear", *(pytest.param(f, marks=pytest.mark.slow) for f in ("kill", "cut", "names"))]
)
def test_whatever_happens_at_any_operation_the_same_call_ends_the_same(tmp_path, whole, fault: Fault):
    count, expected = whole
    assert count > 60
    for moment in range(count):
        root = tmp_path / str(moment)
        root.mkdir()
        if fault in ("fail", "tear"):
            with suppress(UserError):
                _under(Disk(root, fault, moment), root)
        else:
            _killed(lambda root=root, moment=moment: _under(Disk(root, fault, moment), root))
        _go(root)
        assert _outcome(root) == expected, moment

"""A run that others touch: called twice at once, killed before its proof, moved, or on a disk it may only read."""

from __future__ import annotations

import os
import shutil
import threading

import pytest

import rlvr_lite
from rlvr_lite.errors import UserError
from rlvr_lite.runs import Busy, RunDirectory, writer
from rlvr_lite.training import _workflow as workflow

SMALL = {
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 4,
    "eval_problems": 0,
    "max_completion_length": 16,
    "save_steps": 1,
    "progress": False,
}


class _Killed(BaseException):
    pass


def test_a_run_killed_between_its_last_checkpoint_and_its_proof_proves_the_same(tmp_path, monkeypatch):
    whole = rlvr_lite.train("lora", out=tmp_path / "whole", **SMALL)

    def killed(*_):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(workflow, "prove_identity", killed)
        with pytest.raises(_Killed):
            rlvr_lite.train("lora", out=tmp_path / "killed", **SMALL)
    (tmp_path / "killed" / "checkpoints" / ".checkpoint-2.1-1.tmp").mkdir()  # of a writer that died
    again = rlvr_lite.train("lora", out=tmp_path / "killed", **SMALL)
    assert again.files.identity.read_bytes() == whole.files.identity.read_bytes()
    assert again.files.rollouts.path.read_bytes() == whole.files.rollouts.path.read_bytes()
    assert not [path for path in again.directory.rglob("*") if path.name.startswith(".")]
    moved = shutil.move(again.directory, tmp_path / "moved")
    assert rlvr_lite.train("lora", out=moved, **SMALL).damage() is None


def test_who_comes_second_is_told_so_and_nothing_is_touched(tmp_path):
    with writer(RunDirectory(tmp_path / "run").lock, "training"):
        with pytest.raises(Busy, match=f"process {os.getpid()}"):
            rlvr_lite.train("lora", out=tmp_path / "run", **SMALL)
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", ".lock.json"}


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(UserError):
        rlvr_lite.train("lora", out=tmp_path / "new" / "run", targets=("no_proj",), **SMALL)
    assert not (tmp_path / "new" / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("callers", [2, 4])
def test_threads_of_one_process_train_at_once(tmp_path, callers):
    """The same folder for all: one trains, the others wait and get its run; and each a folder of its own."""
    found: list[object] = []

    def call(folder):
        try:
            found.append(rlvr_lite.train("lora", out=tmp_path / folder, wait=True, **SMALL).status)
        except BaseException as error:
            found.append(error)

    for folders in (["same"] * callers, [f"own-{i}" for i in range(callers)]):
        threads = [threading.Thread(target=call, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["done"] * (2 * callers)
    assert len((tmp_path / "same" / "rollouts.jsonl").read_bytes().splitlines()) == 16

"""One writer a folder: the lock ends with its process, says who holds it, and leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from rlvr_lite.errors import UserError
from rlvr_lite.runs import Busy, lock_beside, sweep, writer

HOLD = """
import sys, time
from pathlib import Path
from rlvr_lite.runs import writer
with writer(Path(sys.argv[1]), "training", step=lambda: 3):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run" / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    yield held
    held.send_signal(signal.SIGCONT)
    held.kill()
    held.wait()
    held.stdin.close()
    held.stdout.close()


def test_a_second_one_is_told_who_is_there_since_when_and_at_which_step(tmp_path, other):
    with pytest.raises(Busy) as caught, writer(tmp_path / "run" / ".lock", "training", step=lambda: 7):
        pass
    said = str(caught.value)
    assert re.search(r"training .*since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", said)
    assert all(part in said for part in (f"process {other.pid} ", socket.gethostname(), "step 7", "--wait"))


def test_a_stopped_owner_keeps_it_and_a_killed_one_does_not(tmp_path, other):
    lock = tmp_path / "run" / ".lock"
    other.send_signal(signal.SIGSTOP)
    os.utime(lock, (2**40, 2**40))  # no clock decides
    with pytest.raises(Busy), writer(lock, "training"):
        pass
    other.kill()
    other.wait()
    with writer(lock, "training"):
        assert lock.exists()


def test_whoever_waits_gets_it(tmp_path, other, caplog):
    thread = threading.Timer(0.5, lambda: other.stdin.close())
    thread.start()
    with writer(tmp_path / "run" / ".lock", "training", wait=True):
        assert other.wait(60) == 0
    assert f"process {other.pid}" in caplog.text


def test_of_many_at_once_exactly_one_is_inside(tmp_path):
    inside, most, barrier = [], [], threading.Barrier(8)

    def work():
        barrier.wait()
        with writer(tmp_path / "run" / ".lock", "x", wait=True):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_nothing_is_left_behind_and_an_error_frees_it(tmp_path):
    lock = lock_beside(tmp_path / "new" / "run")
    with pytest.raises(ZeroDivisionError), writer(lock, "x"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()
    with writer(lock, "x"):
        (tmp_path / "new" / "run").touch()
        (tmp_path / "new" / "..run.lock.json.123-4.tmp").touch()  # of a holder that died as it wrote its name
    with writer(lock, "x"):
        pass
    assert os.listdir(tmp_path / "new") == ["run"]


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_gets_a_file_instead(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = tmp_path / ".lock"
    # A process of another host is never seen to be gone; without ENOSYS filelock itself has nothing to fall back on.
    held = rf"process {os.getpid()} " + (r".*delete .*\.soft" if code != errno.ENOSYS else "")
    with writer(lock, "training"), pytest.raises(Busy, match=held), writer(lock, "training"):
        pass
    with writer(lock, "training"):
        pass
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "note",
    ["null", "[]", "{", "[" * 100_000, "\\xff", '{"doing": 1}', *(
        json.dumps({"doing": "training", "host": None, "pid": [], "started": started})
        for started in (None, "x", [], 1e30, -1e30, "9" * 5000)
    )],
    ids=lambda note: note[:40],
)  # fmt: skip
def test_a_note_that_says_nothing_is_no_obstacle(tmp_path, note):
    with writer(tmp_path / ".lock", "training"):
        (tmp_path / ".lock.json").write_text(note)
        with pytest.raises(Busy, match="another process is at work"), writer(tmp_path / ".lock", "training"):
            pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), writer(tmp_path / "file" / "run" / ".lock", "x"):
        pass


def test_leftovers_of_dead_writers_are_swept_and_nothing_else(tmp_path):
    (tmp_path / ".checkpoint-4.123-456.tmp").mkdir()
    (tmp_path / ".summary.json.123.tmp").touch()
    (tmp_path / ".checkpoint-2.9.old").mkdir()
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / ".adapter.9-1.old").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "..merged.1-2.tmp.1-2.tmp").mkdir()
    sweep(tmp_path, names=("merged",))
    assert len(os.listdir(tmp_path)) == 6
    sweep(tmp_path, tmp_path / "nowhere")
    assert sorted(os.listdir(tmp_path)) == [".cache", "adapter", "checkpoint-2"]

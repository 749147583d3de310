"""One holder at a time; what a dead one held is free again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from rlvr_lite.study.lease import held, lease


def test_only_one_holds_it_and_it_is_free_afterwards(tmp_path):
    path = tmp_path / "trial.json"
    with lease(path) as first:
        assert first
        with lease(path) as second:
            assert not second
        assert held(path)  # the loser's leaving does not free it
    assert not held(path)


def test_of_many_at_once_exactly_one_gets_it(tmp_path):
    path, barrier, won = tmp_path / "trial.json", threading.Barrier(8), []

    def race() -> None:
        barrier.wait()
        with lease(path) as mine:
            if mine:
                won.append(1)
                time.sleep(0.3)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_process_that_is_gone_holds_nothing(tmp_path):
    path = tmp_path / "trial.json"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid, "token": "x"}))
    assert not held(path)
    with lease(path) as mine:
        assert mine


def test_another_machine_holds_it_until_it_stops_renewing(tmp_path):
    path = tmp_path / "trial.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
    with lease(path) as mine:
        assert not mine
    past = time.time() - 120
    os.utime(path, (past, past))
    with lease(path) as mine:
        assert mine


def test_a_holder_renews_its_lease(tmp_path):
    path = tmp_path / "trial.json"
    with lease(path, seconds=0.6):
        past = time.time() - 0.5
        os.utime(path, (past, past))
        time.sleep(0.4)
        assert time.time() - path.stat().st_mtime < 0.4


def test_who_was_overtaken_does_not_free_the_new_holders_lease(tmp_path):
    path = tmp_path / "trial.json"
    with lease(path):
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
    assert held(path)


def test_an_error_inside_frees_it(tmp_path):
    path = tmp_path / "trial.json"
    with pytest.raises(ZeroDivisionError), lease(path):
        _ = 1 / 0
    assert not held(path)

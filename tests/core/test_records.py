"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import resource
import signal
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite import records
from rlvr_lite.errors import UserError
from rlvr_lite.records import (
    JsonLines,
    atomic_directory,
    damage,
    make_folder,
    read_json,
    read_jsonl,
    refuse_pickles,
    write_json,
    write_manifest,
    write_text,
)
from tests.disk import Disk

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


@given(st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=5), st.integers(0, 5))
def test_lines_are_appended_and_cut_back(tmp_path_factory, rows, kept):
    log = JsonLines(tmp_path_factory.mktemp("log") / "log.jsonl")
    kept = min(kept, len(rows))
    log.append(*rows[:kept])
    position = log.position
    log.append(*rows[kept:])
    assert log.rows() == rows
    log.cut(position)
    assert log.rows() == rows[:kept]


@pytest.mark.parametrize(
    "tail", [b"", b'{"a"', b'{"a": 3}', bytes(300), bytes(5) + b"\n", b"\xff\n", b"[1]\n", b"[" * 99999 + b"\n"]
)
def test_what_a_power_cut_tore_is_no_part_of_a_log(tmp_path, tail):
    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"a": 1}, {"a": 2})
    kept = log.position
    log.path.write_bytes(log.path.read_bytes() + tail)
    assert log.whole() == log.whole(kept) == kept
    assert log.whole(kept - 1) < kept - 1
    log.cut(log.whole())
    log.cut(10**6)  # a shorter log stays as it is
    assert log.rows() == [{"a": 1}, {"a": 2}]


def test_halves_of_surrogate_pairs_are_kept(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"text": "a\ud800b"})
    write_json(tmp_path / "x.json", {"text": "\udfff"})
    assert log.rows() == [{"text": "a\ud800b"}]
    assert read_json(tmp_path / "x.json") == {"text": "\udfff"}


def test_a_full_disk_leaves_no_half_line_and_no_half_folder(tmp_path):
    """A limit on the size of a file stands for the disk; safetensors has an error of its own for both."""
    import torch

    from rlvr_lite.training import _checkpoints as checkpoints

    def policy(folder):
        raise AssertionError("what comes after a failed write is not begun")

    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"a": 1})
    ignored, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write"):
            log.append({"a": "b" * 30_000})
        with pytest.raises(UserError, match="cannot write"):
            checkpoints.write(tmp_path / "checkpoint-1", {"trained": {"a": torch.zeros(10_000)}}, "{}", policy=policy)
        with pytest.raises(UserError, match="cannot write"):
            write_json(tmp_path / "x.json", "b" * 30_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert log.rows() == [{"a": 1}]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 5000, "", "{"])
def test_json_that_python_chokes_on_is_one_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_line_of_a_gigabyte_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n')
    os.truncate(path, 2**30)  # sparse
    tracemalloc.start()
    try:
        for read in (read_jsonl, read_json):
            with pytest.raises(UserError, match="MiB"):
                read(path)
        log = JsonLines(path)
        assert log.whole() == log.whole(2**25) == 9
        assert log.whole(8) == 0
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def test_a_pipe_is_one_line_and_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_jsonl, read_json):
        with pytest.raises(UserError, match="pipe"):
            read(tmp_path / "pipe")


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", float("nan"))


def test_unreadable_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(UserError, match="line 3"):
        read_jsonl(path)
    path.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(UserError, match="line 2"):
        read_jsonl(path)
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(UserError, match="UTF-8"):
        read_jsonl(path)


def test_a_failed_write_leaves_the_old_text_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(UserError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_directory_appears_whole(tmp_path):
    target = tmp_path / "thing"
    with atomic_directory(target, step=3) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.json").write_text("{}")
        assert not target.exists()
    assert damage(target) is None
    assert json.loads((target / "manifest.json").read_text())["step"] == 3


def test_a_directory_does_not_take_the_place_of_a_file(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("mine")
    with pytest.raises(UserError, match="is a file"), atomic_directory(target):
        pass
    assert target.read_text() == "mine"


def test_a_directory_that_breaks_off_leaves_the_old_one(tmp_path):
    target = tmp_path / "thing"
    with atomic_directory(target) as folder:
        (folder / "a").write_text("old")
    with contextlib.suppress(RuntimeError), atomic_directory(target) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert damage(target) is None
    assert os.listdir(tmp_path) == ["thing"]


@pytest.mark.parametrize("harm", ["missing", "changed", "manifest", "no manifest"])
def test_damage_is_named(tmp_path, harm):
    target = tmp_path / "thing"
    with atomic_directory(target) as folder:
        (folder / "a").write_text("text")
    if harm == "missing":
        (target / "a").unlink()
    elif harm == "changed":
        (target / "a").write_text("tExt")
    elif harm == "manifest":
        (target / "manifest.json").write_text("{")
    else:
        (target / "manifest.json").unlink()
    assert "thing" in damage(target)


@pytest.mark.parametrize("name", ["model.bin", "sub/optimizer.pt", "x.pkl", "last.ckpt"])
def test_pickles_are_refused(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="pickle"):
        refuse_pickles(tmp_path)


def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    target = tmp_path / "thing"
    with atomic_directory(target) as folder:
        (folder / "weights").write_text("1")

    def forbidden(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(hashlib, "file_digest", forbidden)
    with pytest.raises(UserError, match=r"weights: Permission denied"):
        damage(target)


def test_what_is_synced_in_a_new_folder_is_found_after_a_power_cut(tmp_path):
    left = []
    with Disk(tmp_path, "cut", before=left.append):
        make_folder(tmp_path / "a" / "b")
        write_text(tmp_path / "a" / "b" / "c", "kept")
        write_text(tmp_path / "d", "")
    assert left[-1]["a/b/c"] == b"kept"


def test_a_manifest_that_survives_a_power_cut_names_files_that_do(tmp_path):
    left = []
    with Disk(tmp_path, "cut", before=left.append):
        make_folder(tmp_path / "run" / "eval")
        log = JsonLines(tmp_path / "run" / "eval" / "before.jsonl")
        log.append({"a": 1})
        write_manifest(tmp_path / "run", [log.path])
        write_text(tmp_path / "later", "")
    with_manifest = [state for state in left if "run/manifest.json" in state]
    assert with_manifest
    assert all(state["run/eval/before.jsonl"] == b'{"a": 1}\n' for state in with_manifest)

"""Folders that are closed to the user, or may only be read: one line, and nothing half-written."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import rlvr_lite
from rlvr_lite import cli
from rlvr_lite.conversation import chat
from rlvr_lite.errors import UserError
from rlvr_lite.records import read_jsonl
from rlvr_lite.study import Study, compare
from tests.study.fake import make_design, make_study

_OVERRIDE = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root into any folder


@contextmanager
def _as_a_user() -> Iterator[None]:
    """Permissions hold for root too."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(head, data):
        pytest.skip("this system has no capabilities to drop")
    effective = data[0]
    data[0] = effective & ~_OVERRIDE
    assert not libc.capset(head, data), os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        data[0] = effective
        assert not libc.capset(head, data)


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study", make_design(["lora", "dora"], seeds=(0,)))


def _run(study: Study):
    return next(iter(study.rows["lora"].runs.values())).directory


@pytest.fixture(params=["folder", "files"])
def closed(request, study):
    """The folder of a run that somebody else owns: nobody may look into it, or read what is in it."""
    run = _run(study)
    paths = [run] if request.param == "folder" else [*run.iterdir()]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0)
    yield run
    for path, mode in modes.items():
        path.chmod(mode)


@pytest.mark.parametrize(
    "call",
    [
        rlvr_lite.load,
        lambda run: str(rlvr_lite.load(run)),
        lambda run: rlvr_lite.evaluate(run, "chain-sum:test", n=1, k=1),
        lambda run: rlvr_lite.export(run),
        lambda run: rlvr_lite.spectrum(run),
        lambda run: chat(run, "1+1=?"),
        lambda run: rlvr_lite.train("lora", steps=1, out=run),
        lambda run: rlvr_lite.train("lora", steps=1, out=run / "within"),
        lambda run: compare(["lora"], out=run, steps=1),
    ],
    ids=["load", "show", "evaluate", "export", "spectrum", "chat", "train", "train within", "compare"],
)
def test_a_folder_that_is_closed_is_one_line(closed, call, request):
    if request.node.name.endswith(("[files-load]", "[files-train within]")):
        pytest.skip("the folder itself is open")
    with _as_a_user(), pytest.raises(UserError, match=r"cannot (read|use|write)|holds other files"):
        call(closed)


def test_the_command_line_says_it_in_one_line(closed, capsys):
    with _as_a_user(), pytest.raises(SystemExit) as ended:
        cli.main(["show", str(closed)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot read")
    assert len(said.splitlines()) == 1


def test_a_study_that_may_only_be_read_is_shown_and_copied(study, tmp_path):
    board = str(study.leaderboard)
    folders = [study.directory, *(path for path in study.directory.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with _as_a_user():
            found = rlvr_lite.load(study.directory)
            assert str(found.leaderboard) == board
            with pytest.raises(UserError, match=r"report\.html"):
                found.report()
            assert found.report(tmp_path / "elsewhere.html").exists()
            with pytest.raises(UserError, match="cannot write"):
                rlvr_lite.train("lora", steps=1, out=study.directory / "new")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    for place in (
        shutil.copytree(study.directory, tmp_path / "copy"),
        shutil.move(study.directory, tmp_path / "moved"),
    ):
        assert str(Study.load(place).leaderboard) == board
        assert all(run.damage() is None for row in Study.load(place).rows.values() for run in row.runs.values())


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_line_that_python_chokes_on_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{{}}\n{line}\n")
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read_jsonl(path)

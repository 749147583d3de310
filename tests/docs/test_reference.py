"""The API reference is made from docstrings, without a warning, and every public name is on its pages."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys

import pytest

import rlvr_lite
from tests.docs.reader import REPOSITORY, Command, blocks, commands


def _documented() -> Command:
    """The command of CONTRIBUTING that makes the reference."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = [command for block in blocks(text) if block.language == "bash" for command in commands(block)]
    (command,) = [command for command in found if command.words[0] == "pdoc"]
    return command


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not importlib.util.find_spec("pdoc"), reason="needs pdoc (the extra docs has it)")
def test_the_reference_has_every_public_name(tmp_path):
    words = [str(tmp_path / "api") if word == "OUT" else word for word in _documented().words[1:]]
    command = [sys.executable, "-W", "error", "-m", "pdoc", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warn" not in done.stderr.lower(), done.stderr
    face = (tmp_path / "api" / "rlvr_lite.html").read_text(encoding="utf-8")
    for name in rlvr_lite.__all__:
        value = getattr(rlvr_lite, name)
        if inspect.ismodule(value):
            page = tmp_path / "api" / "rlvr_lite" / f"{name}.html"
            text = page.read_text(encoding="utf-8")
            missing = [public for public in value.__all__ if f'id="{public}"' not in text]
            missing = [public for public in missing if not inspect.ismodule(getattr(value, public))]
            assert not missing, f"{page.name} lacks {missing}"
        else:
            assert f'id="{name}"' in face, name
    arguments = re.search(r'id="train".*?</section>', face, re.DOTALL)
    assert arguments is not None
    assert re.search(r"<strong>method:?</strong>", arguments[0]), "arguments are not set as a list"

"""The notebooks: stripped, short cells, one place for parameters, names that exist; and each runs from top to bottom."""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import rlvr_lite
from tests.notebooks import badges
from tests.notebooks.render import FOLDER, NOTEBOOKS, pictures

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
#: Where Colab and Kaggle open a notebook of a repository; what follows is the path in it.
_BADGES = r"(?:colab\.research\.google\.com/github|kaggle\.com/kernels/welcome\?src=)[^\s)\"]*"


def _cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _python(cell: dict[str, Any]) -> str:
    """The cell without IPython's own lines, which Python does not know."""
    return re.sub(r"^(\s*)%.*$", r"\1pass", _source(cell), flags=re.MULTILINE)


def _dotted(node: ast.expr) -> list[str]:
    """The names of ``a.b.c``; empty if it is something else."""
    if isinstance(node, ast.Name):
        return [node.id]
    before = _dotted(node.value) if isinstance(node, ast.Attribute) else []
    return [*before, node.attr] if before else []  # type: ignore[union-attr]


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(1, 9)]


@each
def test_a_notebook_is_stripped_short_and_has_its_parameters_in_one_cell(path):
    for cell in _cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert len(_source(cell).split("\n")) <= 25
        ast.parse(_python(cell))
    tagged = [cell for cell in _cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert all(isinstance(node, ast.Assign) for node in ast.parse(_source(tagged[0])).body)


@each
def test_a_notebook_holds_no_path_of_a_machine_and_no_secret(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"[\"'\s](/(home|root|tmp|work|Users)/|[A-Z]:\\\\)", text)
    nodes = [node for cell in _cells(path) for node in ast.walk(ast.parse(_python(cell)))]
    inside = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values[1:]}
    begun = [node.value for node in nodes if isinstance(node, ast.Constant) and node not in inside]
    assert not [text for text in begun if isinstance(text, str) and re.match(r"/\w|~|[A-Za-z]:[\\/]", text)]
    assert not re.search(r"hf_[A-Za-z0-9]{20,}|token\s*=", text)


@each
def test_every_public_name_in_a_notebook_exists(path):
    for cell in _cells(path):
        for node in ast.walk(ast.parse(_python(cell))):
            if isinstance(node, ast.Attribute) and (names := _dotted(node)) and names[0] == "rlvr_lite":
                assert reduce(getattr, names[1:], rlvr_lite) is not None
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rlvr_lite"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


@each
def test_links_between_notebooks_lead_somewhere_and_badges_to_the_notebook_itself(path):
    text = "\n".join(_source(cell) for cell in _cells(path, "markdown"))
    assert all((FOLDER / name).is_file() for name in re.findall(r"\]\(([\w.]+\.ipynb)\)", text))
    assert all(address.endswith(f"/notebooks/{path.name}") for address in re.findall(_BADGES, text))


@each
def test_a_notebook_says_at_its_top_how_colab_and_kaggle_open_it(path):
    top = _source(_cells(path, "markdown")[0])
    assert re.search(_BADGES, top) or any(
        {"Colab", "Kaggle", "upload"} <= set(re.findall(r"\w+", s)) for s in top.split(".")
    )


def test_a_badge_is_recognised():
    address = "https://colab.research.google.com/github/owner/name/blob/main/notebooks/02_which_method.ipynb"
    assert re.findall(_BADGES, f"[![Open in Colab](badge.svg)]({address})") == [address.removeprefix("https://")]


@each
def test_badges_take_the_place_of_the_sentence_once_the_address_is_known(path, tmp_path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    badges.write(copy, "someone/name")
    badges.write(copy, "owner/name")  # it moved
    top = _source(_cells(copy, "markdown")[0])
    assert [found.partition("owner/name/")[2] for found in re.findall(_BADGES, top)] == [
        f"blob/main/notebooks/{path.name}"
    ] * 2
    assert "upload" not in top
    assert _cells(copy) == _cells(path)


@each
def test_a_notebook_leaves_torch_alone_and_says_where_it_runs(path):
    first = _source(_cells(path)[0])
    installed = re.findall(r"%pip install(.*)", first)
    assert installed == [" --quiet rlvr-lite ipywidgets"]
    assert "native_dtype(device)" in first
    assert "%matplotlib" not in "".join(map(_source, _cells(path)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not importlib.util.find_spec("nbclient"), reason="needs nbclient (the extra test has it)")
@each
def test_a_notebook_runs_from_top_to_bottom_and_shows_pictures(path, tmp_path):
    """``RLVR_LITE_RENDERED`` names a folder that keeps the pictures, and the notebooks with their outputs."""
    out = Path(os.environ.get("RLVR_LITE_RENDERED") or tmp_path).resolve()
    command = [sys.executable, "-m", "tests.notebooks.render", str(out), path.stem]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(out.glob(f"{path.stem}-*.png"))
    shown = [output for cell in _cells(out / path.name) for output in cell["outputs"]]
    complaints = ["".join(output["text"]) for output in shown if output.get("name") == "stderr"]
    assert not [text for text in complaints if "Warning" in text and "ipywidgets" not in text]


def test_pictures_are_found_in_outputs_and_in_html_each_once():
    first, second = (base64.b64encode(text).decode() for text in (b"first", b"second"))
    shown = [
        {"data": {"image/png": first + "\n", "text/plain": "<Figure>"}},
        {"data": {"text/html": [f'<p>1</p><img src="data:image/png;base64,{second}">', "<p>2</p>"]}},
        {"data": {"image/png": first}},
        {"name": "stdout", "text": "no picture"},
    ]
    assert pictures({"cells": [{"outputs": shown}, {"source": "text"}]}) == [b"first", b"second"]


def test_the_pictures_kept_are_small_and_of_notebooks_or_studies():
    kept = sorted((FOLDER / "pictures").iterdir())
    assert kept
    known = "|".join(re.escape(n.stem) for n in NOTEBOOKS)
    assert all(re.fullmatch(rf"({known})-\d+\.png|study-\w+-\w+\.png", path.name) for path in kept)
    assert all(path.stat().st_size <= 60_000 for path in kept)

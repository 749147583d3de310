"""The notebooks: stripped, short cells, one place for parameters, names that exist; and each runs from top to bottom."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rlvr_lite

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[2] + "/done.ipynb")
"""


def _cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _python(cell: dict[str, Any]) -> str:
    """The cell without IPython's own lines, which Python does not know."""
    return re.sub(r"^(\s*)%.*$", r"\1pass", _source(cell), flags=re.MULTILINE)


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(1, len(NOTEBOOKS) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_short_and_has_its_parameters_in_one_cell(path):
    for cell in _cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert len(_source(cell).split("\n")) <= 25
        ast.parse(_python(cell))
    tagged = [cell for cell in _cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert all(isinstance(node, ast.Assign) for node in ast.parse(_source(tagged[0])).body)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_path_of_a_machine_and_no_secret(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"[\"'\s](/(home|root|tmp|work|Users)/|[A-Z]:\\\\)", text)
    assert not re.search(r"hf_[A-Za-z0-9]{20,}|token\s*=", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_public_name_in_a_notebook_exists(path):
    for cell in _cells(path):
        for node in ast.walk(ast.parse(_python(cell))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rlvr_lite":
                assert getattr(rlvr_lite, node.attr) is not None
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rlvr_lite"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_between_notebooks_lead_somewhere(path):
    text = "\n".join(_source(cell) for cell in _cells(path, "markdown"))
    assert all((FOLDER / name).is_file() for name in re.findall(r"\]\((\w+\.ipynb)\)", text))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("nbclient"), reason="needs nbclient (the extra test has it)")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    command = [sys.executable, "-c", _RUN, str(path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = [out for cell in _cells(tmp_path / "done.ipynb") for out in cell["outputs"]]
    assert any("image/png" in out.get("data", {}) or "<img" in str(out.get("data", {})) for out in shown)

"""The notebooks: short cells, stored outputs that a run repeats, one place for parameters, names that exist; and each runs from top to bottom."""

from __future__ import annotations

import ast
import base64
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import rlvr_lite
from tests.notebooks import address
from tests.notebooks.render import FOLDER, NOTEBOOKS, cleaned, pictures, skeleton

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
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(1, 10)]


@each
def test_a_notebook_is_short_shows_its_outputs_and_has_its_parameters_in_one_cell(path):
    counts = [cell["execution_count"] for cell in _cells(path)]
    assert counts in ([None] * len(counts), list(range(1, len(counts) + 1)))  # all of one run, or stripped
    assert counts[0] is None or pictures(json.loads(path.read_text(encoding="utf-8")))
    assert path.stat().st_size < 500_000
    for cell in _cells(path):
        assert not [output for output in cell["outputs"] if output["output_type"] == "error"]
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
def test_a_notebook_says_at_its_top_what_it_needs_how_long_it_takes_and_how_colab_and_kaggle_open_it(path):
    top = _source(_cells(path, "markdown")[0])
    assert address.badges(address.address(), path.name) in top
    assert re.search(r"\bGPU\b", top)
    assert re.search(r"\d (minute|second)s?\b", top)


def test_a_badge_is_recognised():
    address = "https://colab.research.google.com/github/owner/name/blob/main/notebooks/02_which_method.ipynb"
    assert re.findall(_BADGES, f"[![Open in Colab](badge.svg)]({address})") == [address.removeprefix("https://")]


@each
def test_the_first_cell_is_the_same_everywhere_and_has_the_address_that_the_project_names(path):
    assert _source(_cells(path)[0]) == address.setup(address.address())
    assert "%matplotlib" not in "".join(map(_source, _cells(path)))


def test_the_address_is_named_once_and_found_everywhere(tmp_path):
    places = ["pyproject.toml", "README.md", "CITATION.cff"]
    for name in places:
        shutil.copy(FOLDER.parent / name, tmp_path / name)
    shutil.copytree(FOLDER, tmp_path / "notebooks")
    before = {path: path.read_text(encoding="utf-8") for path in sorted(tmp_path.rglob("*.*")) if path.suffix != ".png"}
    address.write(tmp_path, "https://github.com/someone/name")
    address.write(tmp_path, "https://github.com/owner/name")  # it moved
    assert address.address(tmp_path) == "https://github.com/owner/name"
    for name in places:
        assert (tmp_path / name).read_text(encoding="utf-8").count("https://github.com/owner/name") == 1
    for path in sorted((tmp_path / "notebooks").glob("*.ipynb")):
        found = re.findall(_BADGES, _source(_cells(path, "markdown")[0]))
        assert [part.partition("owner/name/")[2] for part in found] == [f"blob/main/notebooks/{path.name}"] * 2
        assert _source(_cells(path)[0]).count('REPOSITORY = "https://github.com/owner/name"') == 1
    address.write(tmp_path, address.address(FOLDER.parent))
    assert before == {path: path.read_text(encoding="utf-8") for path in before}


@pytest.mark.parametrize(
    ("has", "repository", "asked", "said"),
    [
        ("package", "", None, "was installed"),
        ("checkout", "https://github.com/owner/name", ["-e", "CHECKOUT"], "is now installed from CHECKOUT"),
        ("nothing", "https://github.com/owner/name", ["rlvr-lite @ git+https://github.com/owner/name"], "git+https"),
        ("nothing", "", ["rlvr-lite"], "is now installed from rlvr-lite"),
    ],
)
def test_the_package_is_looked_for_in_the_checkout_then_at_the_address_then_on_the_index(
    tmp_path, monkeypatch, capsys, has, repository, asked, said
):
    place = tmp_path / "notebooks"
    place.mkdir()
    if has == "checkout":
        (tmp_path / "rlvr_lite").mkdir()
        (tmp_path / "rlvr_lite" / "__init__.py").touch()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if has == "package" else None)
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda words: ran.append(words) or subprocess.CompletedProcess(words, 0))
    exec(address.setup(repository), {})
    assert said.replace("CHECKOUT", str(tmp_path)) in capsys.readouterr().out
    known = [word.replace("CHECKOUT", str(tmp_path)) for word in asked or ()]
    assert [words[5:] for words in ran] == ([[*known, "ipywidgets"]] if asked else [])
    assert not [word for words in ran for word in words if re.search(r"torch|[=<>]=|upgrade", word)]
    assert (str(tmp_path) in sys.path) is (has == "checkout")


def test_what_cannot_be_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda words: subprocess.CompletedProcess(words, 1))
    with pytest.raises(RuntimeError, match="REPOSITORY"):
        exec(address.setup(""), {})


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not importlib.util.find_spec("nbclient"), reason="needs nbclient (the extra test has it)")
@each
def test_a_notebook_runs_from_top_to_bottom_and_shows_what_is_stored(path, tmp_path):
    """``RLVR_LITE_RENDERED`` names a folder that keeps the notebooks with their outputs."""
    out = Path(os.environ.get("RLVR_LITE_RENDERED") or tmp_path).resolve()
    command = [sys.executable, "-m", "tests.notebooks.render", str(out), path.stem]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    fresh, stored = (json.loads((folder / path.name).read_text(encoding="utf-8")) for folder in (out, FOLDER))
    assert pictures(fresh)
    stripped = all(cell["execution_count"] is None for cell in _cells(path))
    assert stripped or skeleton(fresh) == skeleton(stored), (
        "store what it shows now: python -m tests.notebooks.render notebooks NAME"
    )
    shown = [output for cell in _cells(out / path.name) for output in cell["outputs"]]
    assert not [o for o in shown if "Warning" in "".join(o.get("text", ""))]


def test_pictures_are_found_in_outputs_and_in_html_each_once():
    first, second = (base64.b64encode(text).decode() for text in (b"first", b"second"))
    shown = [
        {"data": {"image/png": first + "\n", "text/plain": "<Figure>"}},
        {"data": {"text/html": [f'<p>1</p><img src="data:image/png;base64,{second}">', "<p>2</p>"]}},
        {"data": {"image/png": first}},
        {"name": "stdout", "text": "no picture"},
    ]
    assert pictures({"cells": [{"outputs": shown}, {"source": "text"}]}) == [b"first", b"second"]


def _notebook(**output: Any) -> Any:
    cell = {"cell_type": "code", "source": "x", "metadata": {"execution": 1}, "outputs": [output]}
    return {"cells": [cell], "metadata": {}}


def test_stored_are_small_pictures_and_no_bars():
    from PIL import Image

    noise = io.BytesIO()
    Image.effect_noise((60, 60), 90).convert("RGB").save(noise, "PNG")
    picture = base64.b64encode(noise.getvalue()).decode()
    for kind, value in (("image/png", picture), ("text/html", f'<img src="data:image/png;base64,{picture}">')):
        (cell,) = cleaned(_notebook(data={kind: value}))["cells"]
        assert len(cell["outputs"][0]["data"][kind]) < len(value)
        assert cell["metadata"] == {}
    for bar in ({"name": "stderr", "text": "50%"}, {"data": {"application/vnd.jupyter.widget-view+json": {}}}):
        assert cleaned(_notebook(**bar))["cells"][0]["outputs"] == []


def test_a_stored_output_may_differ_in_digits_and_in_nothing_else():
    def of(html: str) -> Any:
        return skeleton(_notebook(data={"text/html": html}))

    assert of("<th>avg@8</th><td>0.5</td>") == of("<th style=x>avg@4</th><td>0.6</td>")
    assert of("<th>avg@8</th>") != of("<th>pass@8</th>")
    assert of("") != skeleton(_notebook(data={"image/png": ""}))
    assert of("") != skeleton(_notebook(name="stdout", text=""))


def test_the_pictures_kept_are_small_and_of_studies():
    kept = sorted((FOLDER / "pictures").iterdir())
    assert kept
    assert all(re.fullmatch(r"study-\w+-\w+\.png", path.name) for path in kept)
    assert all(path.stat().st_size <= 60_000 for path in kept)

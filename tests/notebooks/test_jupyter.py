"""One notebook in a real JupyterLab in a headless browser: the bar moves, the plot is drawn, and the screenshot shows both."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tests.notebooks.render import FOLDER
from tests.study.browser import Browser, browser

_BAR = ".jp-OutputArea-output .progress-bar, .jp-OutputArea-output [role=progressbar]"
_PLOT = '.jp-OutputArea-output img[src^="data:image/png"]'
_BLUE = (0x00, 0x72, 0xB2)  # of the curves
_GREEN, _LIGHT_GREEN = (0x38, 0x8E, 0x3C), (0x4C, 0xAF, 0x50)  # of a bar at its end, in the light and the dark theme
_WHITE, _PAGE = (255, 255, 255), (0x11, 0x11, 0x11)  # of a plot, and of the page in the dark theme

needs_jupyter = pytest.mark.skipif(
    not (importlib.util.find_spec("jupyterlab") and importlib.util.find_spec("ipywidgets")),
    reason="needs jupyterlab and ipywidgets (pip install 'rlvr-lite[notebook]')",
)


@contextmanager
def jupyterlab(folder: Path):
    """The address of a server of its own, with nothing of the user's settings."""
    private = {f"JUPYTER_{what}_DIR": str(folder / what.lower()) for what in ("RUNTIME", "CONFIG", "DATA")}
    environment = os.environ | private | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    options = ["--no-browser", "--allow-root", "--port=0", "--LabApp.expose_app_in_browser=True"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            until(lambda: list((folder / "runtime").glob("jpserver-*.json")) or process.poll(), 60, "a server")
            facts = json.loads(next((folder / "runtime").glob("jpserver-*.json")).read_text())
            yield facts["url"], facts["token"]
        finally:
            process.terminate()


def until(found: Callable[[], Any], seconds: float, what: str) -> Any:
    """What ``found`` returns once it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.2)
    raise AssertionError(f"{what} did not appear within {seconds:g} s")


def short(folder: Path) -> str:
    """The quickstart with few steps and nothing shown yet, and its name."""
    notebook = json.loads((FOLDER / "01_quickstart.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell |= {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
    cell = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", ()))
    cell["source"] = ["".join(cell["source"]).replace("STEPS = 40", "STEPS = 12")]
    (folder / "short.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return "short.ipynb"


def text(page: Browser) -> str:
    """What the outputs say, with single spaces."""
    found = page.run("return [...document.querySelectorAll('.jp-OutputArea-output')].map(e => e.innerText)")
    return " ".join(" ".join(found).split())


def photographed(page: Browser, file: Path, colours: Mapping[tuple[int, int, int], int]) -> bytes:
    """The screenshot, once it has so many pixels of each colour; the last one is kept either way."""

    def taken() -> bytes | None:
        picture = base64.b64decode(page.ask("GET", "/screenshot"))
        file.write_bytes(picture)
        return picture if all(pixels(picture, colour) > least for colour, least in colours.items()) else None

    return until(taken, 30, f"what {file.name} should show")


def pixels(picture: bytes, colour: tuple[int, int, int]) -> int:
    """How many have this colour, or nearly."""
    image = (255 * imread(io.BytesIO(picture))[..., :3]).round()
    return int((np.abs(image - np.array(colour)).max(axis=2) <= 12).sum())


@needs_jupyter
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_jupyterlab_shows_the_bar_while_it_trains_and_the_plot_after(tmp_path):
    """``RLVR_LITE_RENDERED`` names a folder that keeps the screenshots."""
    kept = Path(os.environ.get("RLVR_LITE_RENDERED") or tmp_path)
    kept.mkdir(parents=True, exist_ok=True)
    name = short(tmp_path)
    with browser() as page, jupyterlab(tmp_path) as (address, token):
        page.size(1100, 1000)
        page.ask("POST", "/url", {"url": f"{address}lab/tree/{name}?token={token}"})
        until(lambda: page.run("return !!window.jupyterapp && !!document.querySelector('.jp-Notebook')"), 120, "Lab")
        idle = "const p = window.jupyterapp.shell.currentWidget; return p?.sessionContext?.session?.kernel?.status"
        until(lambda: page.run(idle) == "idle", 120, "a kernel")
        page.run("window.jupyterapp.shell.collapseLeft()")
        page.run("window.jupyterapp.commands.execute('notebook:run-all-cells')")

        bar = "return document.querySelectorAll(arguments[0]).length"
        until(lambda: page.run(bar, _BAR), 300, "a progress bar")
        until(lambda: re.search(r"dora: [1-9]\d?% \d+/12 ", text(page)), 300, "the bar of training on its way")
        plot = "return [...document.querySelectorAll(arguments[0])].some(e => e.complete && e.naturalWidth > 600)"
        until(lambda: page.run(plot, _PLOT), 300, "a plot")
        until(lambda: "home" in text(page), 300, "the last cell")
        assert "dora: 100%" in text(page)
        assert "Error" not in text(page)

        page.run("document.querySelector(arguments[0]).scrollIntoView({block: 'end'})", _PLOT)
        photographed(page, kept / "jupyterlab.png", {_BLUE: 300, _GREEN: 300})
        change = "return window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
        page.run(change)
        page.run("document.querySelector(arguments[0]).scrollIntoView({block: 'end'})", _PLOT)
        dark = photographed(page, kept / "jupyterlab-dark.png", {_BLUE: 300, _LIGHT_GREEN: 300, _PAGE: 100_000})
        assert pixels(dark, _WHITE) > 50_000  # the plot has its own ground

"""Run notebooks as a reader would and keep what they show: ``python -m tests.notebooks.render OUT [NAME ...]``.

Each leaves ``OUT/NAME.ipynb`` with its outputs and a ``OUT/NAME-N.png`` a picture, in the order of its cells.
"""

from __future__ import annotations

import base64
import io
import os
import re
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_COLOURS = 64  # all that a plot needs, at a third of the bytes
_IN_HTML = re.compile(r'src="data:image/png;base64,([^"]+)"')


def execute(path: Path) -> Any:
    """The notebook with its outputs, run from top to bottom in an empty folder."""
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(path, 4)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        # files instead of ports, which another kernel may take between the choice and the use
        config = Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        where = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=where, config=config)
        client.execute(env=environment)
    return notebook


def pictures(notebook: Any) -> list[bytes]:
    """PNG files that the cells show, those inside HTML too, each once."""
    found: dict[str, None] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                found["".join(data["image/png"]).replace("\n", "")] = None
            found |= dict.fromkeys(_IN_HTML.findall("".join(data.get("text/html", ""))))
    return [base64.b64decode(text) for text in found]


def save_small(picture: bytes, path: Path) -> None:
    """A PNG of few colours."""
    from PIL import Image

    Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLOURS).save(path, optimize=True)


def render(path: Path, out: Path) -> Path:
    """Execute one notebook into ``out``; the file with its outputs."""
    import nbformat

    notebook = execute(path)
    out.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures(notebook), start=1):
        save_small(picture, out / f"{path.stem}-{number}.png")
    nbformat.write(notebook, out / path.name)
    return out / path.name


def main(out: str, *names: str) -> None:
    """Render the named notebooks, or all, and say what each cost."""
    for path in NOTEBOOKS:
        if names and path.stem not in names:
            continue
        before = _seconds()
        render(path, Path(out))
        print(f"{path.stem}: {_seconds() - before:.0f} CPU seconds", flush=True)


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])

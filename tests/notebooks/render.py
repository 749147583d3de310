"""Run notebooks as a reader would and keep what they show: ``python -m tests.notebooks.render OUT [NAME ...]``.

Each leaves ``OUT/NAME.ipynb`` with its outputs. With ``notebooks`` for ``OUT`` these are the ones that are stored.
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
_IN_HTML = re.compile(r'(?<=src="data:image/png;base64,)([^"]+)')
_HEADER = re.compile(r"<th\b[^>]*>(.*?)</th>")
_WIDGET = "application/vnd.jupyter.widget-view+json"  # a bar, which is nothing without its kernel


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


def small(picture: str) -> str:
    """A PNG with few colours, in base64 as it was."""
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(_COLOURS).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def save_small(picture: bytes, path: Path) -> None:
    """The same for a PNG file."""
    path.write_bytes(base64.b64decode(small(base64.b64encode(picture).decode())))


def cleaned(notebook: Any) -> Any:
    """The notebook as it is stored: small pictures, and neither bars nor the times and versions of a kernel."""
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] != "code":
            continue
        shown = [o for o in cell["outputs"] if o.get("name") != "stderr" and _WIDGET not in o.get("data", {})]
        for output in shown:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = small("".join(data["image/png"]))
            if "text/html" in data:
                data["text/html"] = _IN_HTML.sub(lambda found: small(found[1]), "".join(data["text/html"]))
        cell["outputs"] = _joined(shown)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs in which what is printed in one go is one, however it was sent."""
    found: list[Any] = []
    for output in outputs:
        if found and output.get("name") and output["name"] == found[-1].get("name"):
            found[-1]["text"] = "".join(found[-1]["text"]) + "".join(output["text"])
        else:
            found.append(output)
    return found


def skeleton(notebook: Any) -> list[Any]:
    """What has to be the same whenever a notebook is run: its cells, the kinds of their outputs, and names of columns."""
    found: list[Any] = []
    for cell in notebook["cells"]:
        found.append("".join(cell["source"]))
        kinds: list[Any] = []
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            columns = [re.sub(r"[\d.,]+", "#", text) for text in _HEADER.findall("".join(data.get("text/html", "")))]
            kind = (output.get("name"), sorted(data), columns)
            kinds += [kind] if kinds[-1:] != [kind] else []
        found.append(kinds)
    return found


def render(path: Path, out: Path) -> Path:
    """Execute one notebook into ``out``; the file with its outputs."""
    import nbformat

    notebook = cleaned(execute(path))
    out.mkdir(parents=True, exist_ok=True)
    target = out / path.name
    target.write_text(nbformat.writes(notebook, indent=1).rstrip("\n") + "\n", encoding="utf-8")
    return target


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

"""The repository's address, named once: ``python -m tests.notebooks.address [https://HOST/OWNER/NAME]``.

It stands in ``pyproject.toml``, as ``Repository`` of the project's addresses. From there this script writes it into the
first cell of every notebook, into their badges for Colab and Kaggle (both open a notebook by its address on GitHub), into
README.md and CITATION.cff. Until it is known, a notebook says in a sentence how to upload it.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Stands for an address that nobody knows yet.
UNKNOWN = "https://HOST/OWNER/rlvr_lite"
_UPLOAD = "To run it on Colab or Kaggle, upload this file there."
_BADGES = re.compile(rf"{re.escape(_UPLOAD)}|\[!\[Open in Colab\].*|The source is at http\S*")

#: The first code of every notebook; ``REPOSITORY`` in it is the address.
SETUP = """\
# Finds rlvr_lite: installed, in the checkout around this file, at its Git address, or on the package index.
import importlib.util
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""
folders = [Path.cwd().resolve(), *Path.cwd().resolve().parents]
checkout = next((folder for folder in folders if (folder / "rlvr_lite" / "__init__.py").is_file()), None)
how = "was installed"
if importlib.util.find_spec("rlvr_lite") is None:
    source = str(checkout or (f"rlvr-lite @ git+{REPOSITORY}" if REPOSITORY else "rlvr-lite"))
    what = [*(["-e"] if checkout else []), source, "ipywidgets"]  # what the host has, such as torch, stays as it is
    if subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *what]).returncode:
        raise RuntimeError(f"pip could not install {source}: set REPOSITORY to the address that you cloned from")
    sys.path[:0] = [str(checkout)] if checkout else []
    how = f"is now installed from {source}"
import torch

import rlvr_lite

gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] or ["none, so the CPU"]
print(f"rlvr_lite {rlvr_lite.__version__} {how}; torch {torch.__version__}; GPU: {', '.join(gpus)}")
"""


def address(root: Path = ROOT) -> str:
    """The address that the project names, or nothing."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def setup(repository: str) -> str:
    """The first cell of a notebook."""
    return SETUP.replace('REPOSITORY = ""', f'REPOSITORY = "{repository}"').rstrip("\n")


def badges(repository: str, name: str, branch: str = "main") -> str:
    """One line of Markdown that opens a notebook at Colab and Kaggle, or says how.

    >>> badges("https://github.com/owner/name", "01_quickstart.ipynb").count("/blob/main/notebooks/01_quickstart.ipynb)")
    2
    """
    if not repository.startswith("https://github.com/"):
        return f"The source is at {repository}." if repository else _UPLOAD
    path = f"{repository.removeprefix('https://github.com/')}/blob/{branch}/notebooks/{name}"
    colab = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{path})"
    kaggle = f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/{path})"
    return f"{colab} {kaggle}"


def write(root: Path, repository: str) -> None:
    """Put the address wherever it belongs; an empty one takes it out again."""

    def change(name: str, with_: Callable[[str], str]) -> None:
        path = root / name
        path.write_text(with_(path.read_text(encoding="utf-8")), encoding="utf-8")

    line = f'Repository = "{repository}"\n' if repository else ""
    change("pyproject.toml", lambda text: re.sub(r'^Repository = ".*"\n', "", text, flags=re.MULTILINE))
    change("pyproject.toml", lambda text: text.replace("[project.urls]\n", f"[project.urls]\n{line}", 1))
    shown = repository or UNKNOWN
    change("README.md", lambda text: re.sub(r"^REPOSITORY=\S+", f"REPOSITORY={shown}", text, flags=re.MULTILINE))
    cited = f"repository-code: {repository}\n" if repository else ""
    change("CITATION.cff", lambda text: re.sub(r"^repository-code: .*\n", "", text, flags=re.MULTILINE))
    change("CITATION.cff", lambda text: text.replace("license:", f"{cited}license:", 1))
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        top, first = stored["cells"][:2]
        text, own = "".join(top["source"]), badges(repository, path.name)
        top["source"] = _BADGES.sub(lambda _, own=own: own, text, count=1).splitlines(keepends=True)
        first["source"] = setup(repository).splitlines(keepends=True)
        path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(ROOT, *(sys.argv[1:] or [address()]))

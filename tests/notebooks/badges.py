"""Put badges for Colab and Kaggle on every notebook: ``python -m tests.notebooks.badges OWNER/NAME [BRANCH]``.

Both sites open a notebook by its address on GitHub, so the badges can be written only where the repository's address is
known. Until then each notebook says in a sentence how to upload it; the badges take that sentence's place.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.notebooks.render import NOTEBOOKS

_UPLOAD = re.compile(r"To run it on Colab or Kaggle, upload[^.]*\.")
_BADGE_LINE = re.compile(r"\[!\[Open in Colab\].*")


def badges(repository: str, branch: str, name: str) -> str:
    """One line of Markdown that opens the notebook ``name`` of a GitHub repository at both sites.

    >>> badges("owner/name", "main", "01_quickstart.ipynb").count("/owner/name/blob/main/notebooks/01_quickstart.ipynb)")
    2
    """
    path = f"{repository}/blob/{branch}/notebooks/{name}"
    colab = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{path})"
    kaggle = f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/{path})"
    return f"{colab} {kaggle}"


def write(notebook: Path, repository: str, branch: str = "main") -> None:
    """Put the badges into a notebook's first cell, in place of the sentence or of badges for another address."""
    stored = json.loads(notebook.read_text(encoding="utf-8"))
    top = stored["cells"][0]
    line = badges(repository, branch, notebook.name)
    text = "".join(top["source"])
    for place in (_UPLOAD, _BADGE_LINE):
        text = place.sub(lambda _: line, text, count=1)
    top["source"] = text.splitlines(keepends=True)
    notebook.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for path in NOTEBOOKS:
        write(path, *sys.argv[1:3])

"""A figure that shows itself in a notebook, on a white ground of its own, so that a dark page leaves it legible."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

from matplotlib import figure

from rlvr_lite.errors import UserError, as_html, printable

__all__ = ["Figure", "plot_label"]

_DPI = 110


def plot_label(text: str, length: int = 60) -> str:
    r"""A text from outside as a plot writes it: one line, not too long, and no dollar taken for mathematics.

    >>> print(plot_label("a\x1b[2J\n$5 run", 6))
    a \$5 …
    """
    line = " ".join(printable(text).split())
    return (line if len(line) <= length else line[: length - 1] + "…").replace("$", r"\$")


class Figure(figure.Figure):
    """Matplotlib's, made without pyplot, which keeps a list of all figures and has to be told to draw in a notebook."""

    def savefig(self, fname: Any, *args: Any, **options: Any) -> None:
        """Write the figure, as matplotlib does.

        Raises:
            UserError: the file cannot be written, or its suffix names no format.
        """
        if isinstance(fname, str | os.PathLike) and not Path(fname).suffix and "format" not in options:
            raise UserError(f"cannot write {fname}: its name says no format; name it .png, .svg or .pdf")
        try:
            super().savefig(fname, *args, **options)
        except OSError as error:
            raise UserError(f"cannot write {fname}: {error.strerror or error}; choose another file") from error
        except ValueError as error:
            if "format" not in str(error).lower():
                raise
            raise UserError(f"cannot write {fname}: {error}; name it .png, .svg or .pdf") from error

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()

    def to_html(self, description: str) -> str:
        """The figure as an HTML image that needs no file."""
        data = base64.b64encode(self._repr_png_()).decode()
        return f'<img alt="{as_html(description)}" style="max-width:100%" src="data:image/png;base64,{data}">'

"""A figure that shows itself in a notebook, on a white ground of its own, so that a dark page leaves it legible."""

from __future__ import annotations

import base64
import html
import io

from matplotlib import figure

__all__ = ["Figure"]

_DPI = 110


class Figure(figure.Figure):
    """Matplotlib's, made without pyplot, which keeps a list of all figures and has to be told to draw in a notebook."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()

    def to_html(self, description: str) -> str:
        """The figure as an HTML image that needs no file."""
        data = base64.b64encode(self._repr_png_()).decode()
        return (
            f'<img alt="{html.escape(description, quote=True)}" style="max-width:100%" '
            f'src="data:image/png;base64,{data}">'
        )

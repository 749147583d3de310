"""A small table that prints itself in a terminal, a notebook and a Markdown file."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, Any

from rlvr_lite.errors import as_html, printable

if TYPE_CHECKING:
    import pandas

__all__ = ["Table", "cell_text"]


def cell_text(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _narrowed(wide: list[int], least: list[int], width: int) -> list[int]:
    """Widths of columns, the widest taken from first until they fit, and none below its longest word."""
    wide, over = list(wide), sum(wide) + 2 * (len(wide) - 1) - width
    while over > 0 and (open_ := [i for i, w in enumerate(wide) if w > least[i]]):
        wide[max(open_, key=wide.__getitem__)] -= 1
        over -= 1
    return wide


def _wrapped(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Table:
    """Rows of named cells, in order.

    Args:
        columns: the column names.
        rows: one mapping a row; a missing cell is shown as a dash.
        title: a line above the table.
        note: a line below it.
    """

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    title: str = ""
    note: str = ""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], title: str = "", note: str = "") -> Table:
        """A table whose columns are the keys of its rows, in order of first appearance."""
        columns = tuple(dict.fromkeys(key for row in rows for key in row))
        return cls(columns, tuple(rows), title, note)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def _head(self) -> list[str]:
        return [" ".join(printable(column).split("\n")) for column in self.columns]

    def _text(self) -> list[list[str]]:
        return [[" ".join(cell_text(row.get(column)).split("\n")) for column in self.columns] for row in self.rows]

    def _right(self) -> list[bool]:
        cells = [[row.get(column) for row in self.rows] for column in self.columns]
        return [all(value is None or _is_number(value) for value in column) for column in cells]

    def __repr__(self) -> str:
        return f"<Table of {len(self)} rows: {', '.join(self._head())}>"

    def __str__(self) -> str:
        return self.to_text(shutil.get_terminal_size().columns)

    def to_text(self, width: int | None = None) -> str:
        """The table in plain text.

        Args:
            width: characters that it should fit in: words wrap inside of their columns, and columns that find no room go
                below, beside the first one again. No word is broken. ``None`` wraps nothing.
        """
        text, right, head = self._text(), self._right(), self._head()
        lines = [head, *text]
        wide = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        if width is not None:
            least = [max(len(word) for line in lines for word in [*line[i].split(), ""]) for i in range(len(wide))]
            fit = sum(total + 2 * i <= width for i, total in enumerate(accumulate(least)))
            if 2 <= fit < len(wide):  # the rest goes below, beside the first column again
                first = replace(self, columns=self.columns[:fit], note="")
                rest = replace(self, columns=(self.columns[0], *self.columns[fit:]), title="")
                return f"{first.to_text(width)}\n\n{rest.to_text(width)}"
            wide = _narrowed(wide, least, width)

        def block(cells: Sequence[str]) -> list[str]:
            parts = [_wrapped(cell, w) for cell, w in zip(cells, wide, strict=True)]
            rows = zip_longest(*parts, fillvalue="")
            return [
                "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, wide, right, strict=True)).rstrip()
                for row in rows
            ]

        body = [*block(head), "  ".join("─" * w for w in wide), *(part for row in text for part in block(row))]
        around = [[said] if width is None else textwrap.wrap(said, max(width, 20)) for said in (self.title, self.note)]
        return printable("\n".join([*(around[0] if self.title else []), *body, *(around[1] if self.note else [])]))

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown."""
        mark = ["---:" if right else "---" for right in self._right()]
        lines = [self._head(), mark, *self._text()]
        return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)

    def _repr_html_(self) -> str:
        right = ["right" if r else "left" for r in self._right()]

        def line(cells: Sequence[str], tag: str) -> str:
            parts = (
                f'<{tag} style="text-align:{side};padding:.2em .8em">{as_html(cell)}</{tag}>'
                for cell, side in zip(cells, right, strict=True)
            )
            return f"<tr>{''.join(parts)}</tr>"

        caption = f"<caption>{as_html(self.title)}</caption>" if self.title else ""
        note = f"<p><small>{as_html(self.note)}</small></p>" if self.note else ""
        head = f"<thead>{line(self._head(), 'th')}</thead>"
        body = f"<tbody>{''.join(line(row, 'td') for row in self._text())}</tbody>"
        return f"<table>{caption}{head}{body}</table>{note}"

    def to_pandas(self) -> pandas.DataFrame:
        """The same rows as a ``pandas.DataFrame`` (needs pandas)."""
        import pandas

        return pandas.DataFrame([dict(row) for row in self.rows], columns=list(self.columns))

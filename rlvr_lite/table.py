"""A small table that prints itself in a terminal, a notebook and a Markdown file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

    def __str__(self) -> str:
        head, text, right = self._head(), self._text(), self._right()
        width = [max(len(line[i]) for line in [head, *text]) for i in range(len(self.columns))]

        def line(cells: Sequence[str]) -> str:
            parts = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, width, right, strict=True))
            return "  ".join(parts).rstrip()

        body = [line(head), "  ".join("─" * w for w in width), *map(line, text)]
        return printable("\n".join([*filter(None, [self.title]), *body, *filter(None, [self.note])]))

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

"""The dress of a report: style, the script that sorts tables, and tables of HTML. All text goes through ``as_html``."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from rlvr_lite.errors import as_html
from rlvr_lite.table import Table, cell_text

__all__ = ["page", "table"]

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --link: light-dark(#0b5cad, #7cb7ff); }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { line-height: 1.2; font-size: 1.6rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
a { color: var(--link); } nav a { margin-right: .9rem; white-space: nowrap; }
.summary { border-left: 4px solid #0072b2; background: var(--soft); padding: .4rem 1rem; border-radius: 6px; }
.summary li { margin: .3rem 0; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .55rem; text-align: left; vertical-align: top; }
th.number, td.number { text-align: right; } .long { white-space: normal; min-width: 16rem; } ul { padding-left: 1.3rem; }
tbody th { font-weight: 600; position: sticky; left: 0; background: Canvas; } tbody th.long { min-width: 8rem; max-width: 40vw; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: .3rem 0;
  cursor: pointer; text-align: inherit; }
th button::after { content: " \\2195"; opacity: .45; } th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
:focus-visible { outline: 3px solid #e69f00; outline-offset: 2px; }
.pictures { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); align-items: start; }
figure { margin: 0; } figure img { display: block; width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .4rem; }
figcaption { margin-top: .4rem; font-size: .9rem; } small, .note { font-size: .88rem; opacity: .85; }
details { margin: .5rem 0; } summary { cursor: pointer; } pre { white-space: pre-wrap; font-size: .82rem; background: var(--soft); padding: .6rem; border-radius: 6px; }
@media print {
  :root { color-scheme: light; } body { max-width: none; font-size: 10pt; } nav, th button::after { display: none; }
  .scroll { overflow: visible; } .pictures { grid-template-columns: 1fr 1fr; } .long { min-width: 0; }
  table { width: 100%; white-space: normal; overflow-wrap: anywhere; font-size: 7pt; } th, td { padding: .1rem .25rem; }
  tbody th { position: static; } figure, tr, .summary { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
"""
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
  for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[column].dataset.key, number = head.classList.contains("number");
  body.append(...[...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (number ? x - y : x.localeCompare(y, "en", { numeric: true }));
  }));
});
addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) d.open = true; });
"""
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")
_LONG = 44  # characters from which a cell is wrapped
_LONG_NAME = 24  # the same of a row's name, which stays in sight while the table scrolls


def table(found: Table, caption: str | None = None) -> str:
    """A table whose columns sort by click or key; missing cells stay last. Scrolls alone where it is too wide."""
    numeric = [_numeric([row.get(column) for row in found]) for column in found.columns]
    look = [' class="number"' if n else "" for n in numeric]
    head = "".join(
        f'<th scope="col" aria-sort="none"{css}><button type="button">{as_html(column)}</button></th>'
        for column, css in zip(found.columns, look, strict=True)
    )
    lines = []
    for row in found:
        cells = []
        for i, column in enumerate(found.columns):
            value, text = row.get(column), cell_text(row.get(column))
            tag = 'th scope="row"' if i == 0 else "td"
            css = ' class="long"' if len(text) > (_LONG if i else _LONG_NAME) else look[i]
            cells.append(f'<{tag}{css} data-key="{_key(value, numeric[i])}">{as_html(text)}</{tag[:2]}>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    title = as_html(found.title if caption is None else caption)
    note = f'<p class="note">{as_html(found.note)}</p>' if found.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><caption hidden>{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{note}"
    )


def _numeric(values: list[Any]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(_number(value) is not None for value in there)


def _number(value: Any) -> float | None:
    """The number a cell is, or begins with, as in ``0.41 [0.36, 0.46]``."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    match = _NUMBER.match(str(value))
    return float(match[0].replace(",", "")) if match and str(value)[match.end() :][:1] in ("", " ", "%") else None


def _key(value: Any, numeric: bool) -> str:
    if value is None:
        return ""
    return repr(_number(value)) if numeric else as_html(cell_text(value))


def page(title: str, body: str) -> str:
    """A whole document that asks nothing of a network and runs no script but its own."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{as_html(title)}</title><style>{_STYLE}</style></head>\n<body>{body}\n"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )

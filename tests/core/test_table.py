"""A table says the same in every dress."""

from __future__ import annotations

import html
import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvr_lite.errors import printable
from rlvr_lite.table import Table

TABLE = Table.of(
    [{"name": "lora", "n": 1234567, "share": 0.123456}, {"name": "a|b<c>", "n": None}], title="T", note="N"
)


def test_every_dress_holds_every_cell():
    text, markdown, page = str(TABLE), TABLE.to_markdown(), TABLE._repr_html_()
    for cell in ("lora", "1,234,567", "0.1235"):
        assert cell in text
        assert cell in markdown
        assert cell in page
    assert "a\\|b<c>" in markdown
    assert "a|b&lt;c&gt;" in page
    assert TABLE.to_pandas()["n"].tolist()[0] == 1234567


def test_columns_line_up():
    lines = str(TABLE).splitlines()[1:4]
    assert lines[0].index("share") + len("share") == len(lines[2].rstrip())
    assert lines[2].index("1,234,567") + 9 == lines[0].index("n", 4) + 1


WIDE = Table.of(
    [
        {
            "method": f"m{i}",
            "about": "an update of low rank " * (1 + i % 3),
            "trained": 10**i,
            "refused": "4 bits, 8 bits",
        }
        for i in range(9)
    ],
    title="what " * 30,
    note="which " * 30,
)


@pytest.mark.parametrize("width", [30, 40, 80, 120, 1000])
def test_a_wide_table_wraps_in_its_columns_and_loses_no_word(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = str(WIDE).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < (25 if width > 100 else 150)
    said, whole = (sorted(text.replace("─", "").split()) for text in (str(WIDE), WIDE.to_text()))
    again = 1 if width < 40 else 0  # the first column stands beside the others once more
    assert said == sorted(whole + again * ["method", *(f"m{i}" for i in range(9))])
    assert sum(bool(re.match(r"m\d", line)) for line in lines) == 9 * (1 + again)


def test_an_echoed_table_is_short():
    assert len(repr(WIDE)) < 100


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws as slowly
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.text() | st.integers() | st.floats() | st.none() | st.booleans()),
        max_size=4,
    )
)
def test_any_rows_can_be_shown(rows):
    table = Table.of(rows)
    assert len(table) == len(rows)
    page = table._repr_html_()
    shown = html.unescape("".join(re.findall(r"<td[^>]*>(.*?)</td>", page, re.S)))
    texts = [printable(v).replace("\n", " ") for row in rows for v in row.values() if isinstance(v, str)]
    assert all(text in shown for text in texts)
    for said in (shown, str(table), table.to_text(20), table.to_markdown()):
        assert not [c for c in said if unicodedata.category(c) == "Cc" and c not in "\t\n"]

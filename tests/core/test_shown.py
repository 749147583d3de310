"""Text from outside steers no terminal, no page and no plot: labels, questions, answers, paths, names of files."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

import rlvr_lite
from rlvr_lite.config import RunConfig
from rlvr_lite.conversation import Chat, Reply
from rlvr_lite.errors import UserError
from rlvr_lite.figure import Figure, plot_label
from rlvr_lite.sampling import Completion
from rlvr_lite.table import Table
from rlvr_lite.training import training_curves
from rlvr_lite.training._preflight import Preflight
from tests.study.fake import make_design, make_study

HOSTILE = "\x1b[31m<b>red\x1b[2J\x00\u202e\u200f\x1b]8;;http://x\x1b\\$\\frac{ \x07\x9b5m\ud800"
BAD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ud800-\udfff]")


def _plain(*texts: str) -> bool:
    return not any(BAD.search(text) for text in texts)


def _markup(text: str) -> bool:
    return "<b>red" in text


def test_a_table_with_a_hostile_title_column_and_note():
    table = Table.of([{HOSTILE: HOSTILE, "n": 1}], HOSTILE, HOSTILE)
    assert _plain(str(table), table.to_markdown(), table._repr_html_())
    assert not _markup(table._repr_html_())
    assert len({len(line) for line in str(table).splitlines()[1:3]}) == 1  # head and rule are as wide


def test_a_conversation():
    answer = Completion(text=HOSTILE, tokens=3, truncated=True)
    reply = Reply(HOSTILE, answer, answer)
    assert _plain(str(reply), reply._repr_html_())
    assert not _markup(reply._repr_html_())


def test_a_conversation_with_the_run_of_a_stranger(capsys, monkeypatch):
    talk = object.__new__(Chat)
    talk.config = RunConfig(task=HOSTILE)
    monkeypatch.setattr("builtins.input", lambda _: "")
    talk.talk()
    assert _plain(capsys.readouterr().out)


def test_what_a_preflight_found_in_data_of_a_stranger():
    assert _plain(str(Preflight(8, 24, 0.0, 0.0, 0.0, 0.5, 1.0, unreadable_golds=(HOSTILE,), sampled_from=HOSTILE)))


def test_a_study_its_report_and_its_plots(tmp_path):
    study = make_study(tmp_path / "study", make_design({HOSTILE.replace("\ud800", ""): "lora", "dora": "dora"}))
    page = study.report().read_text(encoding="utf-8")
    assert _plain(page, str(study), study.to_markdown(), study._repr_html_())
    assert not _markup(page)
    assert not _markup(study.to_markdown())


def test_plots_draw_hostile_names_without_a_word():
    figure = training_curves({HOSTILE: [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.6}], "b$": []})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure._repr_png_()
    assert _plain(plot_label(HOSTILE), figure.to_html(HOSTILE))
    assert len(plot_label("x" * 500)) == 60


def test_a_plot_that_cannot_be_written_is_one_line(tmp_path):
    for name in ("no/such/folder.png", "picture.docx"):
        with pytest.raises(UserError, match="cannot write"):
            Figure().savefig(tmp_path / name)


def test_one_function_makes_html_of_text():
    """Whoever escapes by hand forgets the control characters."""
    texts = {path.name: path.read_text() for path in Path(rlvr_lite.__file__).parent.rglob("*.py")}
    by_hand = {name for name, text in texts.items() if "html.escape(" in text or "from html import" in text}
    assert by_hand == {"errors.py", "_report.py"}  # the latter for Markdown, after printable

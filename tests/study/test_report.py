"""The report opens in a browser, says what the study says, and lets no text of the user run."""

from __future__ import annotations

import re
import shutil
from html import escape
from html.parser import HTMLParser

import pytest

from rlvr_lite.errors import UserError
from rlvr_lite.progress import duration
from rlvr_lite.study import Study
from rlvr_lite.study._report import notebook_parts, to_markdown, write_report
from rlvr_lite.study._report_page import page, table
from rlvr_lite.study._report_words import method_words, verdict_words
from rlvr_lite.table import Table
from tests.study.browser import ENTER, browser
from tests.study.fake import make_design, make_study

EVIL = '<script>document.title="taken"</script>'
QUOTED = "\" onfocus=\"document.title='taken'\" & 'x'"
SKILL = {"lora": 0.5, "dora": 0.8, "pissa": 0.5, "ln_tuning": 0.2, EVIL: 0.5, QUOTED: 0.45}
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    names = {label: label if label.isidentifier() else "lora" for label in SKILL}
    design = make_design({**names, "hira": "hira"}, seeds=SEEDS, margin=0.05)
    return make_study(tmp_path_factory.mktemp("study"), design, skill=SKILL, failing={"hira": "out of <b>memory</b>"})


@pytest.fixture(scope="module")
def file(study, tmp_path_factory):
    return write_report(study, tmp_path_factory.mktemp("out") / "deeper" / "report.html")


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


class _Reader(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []
        self.images, self.handlers = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        facts = dict(attrs)
        self.addresses += [facts[name] for name in ("src", "href") if name in facts]
        self.handlers += [name for name in facts if name.startswith("on")]
        if tag == "img":
            self.images.append(facts)

    def handle_data(self, data):
        self.text.append(data)


# ---- what the file holds ------------------------------------------------------------------------------------------


def test_the_file_stands_alone(file):
    found = _Reader(file.read_text(encoding="utf-8"))
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    assert found.tags.count("script") == 1
    assert not found.handlers
    assert {"iframe", "object", "embed", "base", "form"}.isdisjoint(found.tags)


def test_the_same_study_gives_the_same_bytes(study, file, tmp_path):
    assert write_report(study, tmp_path / "again.html").read_bytes() == file.read_bytes()


def test_every_picture_is_there_and_told_in_words(study, file):
    images = _Reader(file.read_text(encoding="utf-8")).images
    assert len(images) == 6
    for image in images:
        assert "dora" in image["alt"]
        assert f"{study.accuracy('dora').value:.3f}" in image["alt"]


def test_the_page_shows_every_row_run_and_configuration(study, file):
    text = "".join(_Reader(file.read_text(encoding="utf-8")).text)
    for label, row in study.rows.items():
        assert label in text
        assert f'"method": "{row.config.method}"' in text
    assert "out of <b>memory</b>" in text
    assert text.count("proven") == sum(len(row.runs) + len(row.search) for row in study.rows.values() if row.runs)
    assert "5.8e-08" in text
    assert "2.13.0" in text
    assert '"seed"' not in text


def test_a_failed_proof_is_shown_with_its_reason(tmp_path):
    from rlvr_lite.runs import finish

    study = make_study(tmp_path, make_design(("lora", "dora"), tune="none", seeds=(0,)))
    run = study.rows["dora"].runs[0]
    reason = "3 of 9 trained tensors never had a gradient"
    finish(run.files, run.summary | {"status": "failed", "identity": f"failed: {reason}", "reason": reason})
    text = write_report(type(study)(tmp_path, study.design), tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"failed: {reason}" in text
    assert "dora: no result" in text


def test_a_file_or_folder_in_the_way_is_named(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_report(study, tmp_path / "file" / "report.html")
    with pytest.raises(UserError, match="folder"):
        write_report(study, tmp_path)


# ---- words --------------------------------------------------------------------------------------------------------


def test_words_agree_with_the_comparisons(study):
    lines = verdict_words(study)
    for label in study.rows:
        found = study.comparison(label)
        if found is None:
            continue
        (line,) = [line for line in lines if line.startswith((f"{label}:", f"{label},")) or f", {label}" in line
                   or f"and {label}:" in line]  # fmt: skip
        d = found.difference
        if found.verdict == "better":
            assert f"higher than lora by {d.value:.3f} [{d.low:.3f}, {d.high:.3f}]" in line
        elif found.verdict == "worse":
            assert f"lower than lora by {-d.value:.3f} [{-d.high:.3f}, {-d.low:.3f}]" in line
        else:
            assert found.words.partition(" ")[2] in line or "no significant difference to lora" in line
        if found.verdict in ("better", "worse"):  # how large it may be stands beside its direction
            assert ("not shown to be within" in line) != found.equivalent
            assert f"equivalence margin of {study.margin:.3g}" in line
    assert {study.comparison(label).verdict for label in ("dora", "ln_tuning")} == {"better", "worse"}


def test_what_only_the_correction_holds_back_is_said_apart(study, monkeypatch):
    from dataclasses import replace

    held = replace(study.comparison("dora"), adjusted_p=0.2, verdict="no significant difference", equivalent=False)
    monkeypatch.setitem(study._comparisons, "dora", held)
    (line,) = [line for line in verdict_words(study) if line.startswith("dora:")]
    assert "excludes zero" in line
    assert "correction" in line


@pytest.mark.parametrize(("budget", "said"), [(None, "Equal steps"), (320, "Equal rollouts")])
def test_the_accounting_is_said(budget, said, tmp_path):
    lines = " ".join(method_words(make_study(tmp_path, make_design(("lora",), budget=budget, tune="none"))))
    assert said in lines
    assert "No learning rate was searched" in lines


def test_the_cost_of_the_search_is_said(study):
    (line,) = [line for line in method_words(study) if "learning-rate search" in line]
    assert f"{sum(len(row.search) for row in study.rows.values())} runs" in line
    assert duration(sum(study.search_seconds.values())) in line


def test_one_seed_is_warned_of(tmp_path):
    lines = method_words(make_study(tmp_path, make_design(("lora", "dora"), seeds=(0,), tune="none")))
    assert any(line.startswith("One training seed") for line in lines)


# ---- studies that are not whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [0, 11])
def test_a_study_under_way_renders(until, tmp_path):
    study = make_study(tmp_path, make_design(("lora", "dora")), until=until)
    text = write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "under way" in text
    assert "lora" in to_markdown(study)
    assert "lora" in notebook_parts(study)


def test_a_study_of_failures_renders(tmp_path):
    study = make_study(tmp_path, make_design(("lora", "dora")), failing={"lora": "no room", "dora": "no room"})
    text = write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("no room") >= 4
    assert "under way" not in text


# ---- notebook and Markdown ----------------------------------------------------------------------------------------


def test_notebook_parts_run_nothing(study):
    found = _Reader(study._repr_html_())
    assert "script" not in found.tags
    assert "style" not in found.tags
    assert not found.handlers
    assert len(found.images) == 4


def test_markdown_is_one_table_with_plain_text(study):
    text = to_markdown(study)
    assert "<script" not in text
    assert escape(EVIL, quote=False) in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(study.leaderboard)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_markdown_marks_in_a_name_stay_what_they_are(tmp_path):
    study = make_study(tmp_path, make_design({"a|b *c* `d` [e](f)\n# g": "lora"}, tune="none", seeds=(0,)))
    text = to_markdown(study)
    assert r"a\|b \*c\* \`d\` [e\](f) # g" in text
    assert not re.search(r"^# g", text, re.MULTILINE)


# ---- in Chromium --------------------------------------------------------------------------------------------------


def _column(chromium, place):
    script = "return [...document.querySelectorAll('#leaderboard tbody tr')].map(r => r.cells[arguments[0]].innerText)"
    return chromium.run(script, place)


def test_it_opens_without_a_word_and_without_a_network(chromium, file, study):
    chromium.console(), chromium.requests()
    chromium.open(file)
    assert chromium.run("return document.title") == study.title
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert chromium.run(loaded)
    assert chromium.console() == []
    assert chromium.requests() == [file.resolve().as_uri()]


def test_click_and_key_sort_and_empty_cells_stay_last(chromium, file):
    chromium.open(file)
    head = "#leaderboard th:nth-child({}) button"
    state = "return [...document.querySelectorAll('#leaderboard thead th')].map(h => h.ariaSort)"
    chromium.click(head.format(2))
    values = _column(chromium, 1)
    numbers = [float(value.split()[0]) for value in values if value != "–"]
    assert numbers == sorted(numbers)
    assert values[-1] == "–"
    assert chromium.run(state)[:3] == ["none", "ascending", "none"]
    chromium.press(head.format(2), ENTER)
    values = _column(chromium, 1)
    numbers = [float(value.split()[0]) for value in values if value != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert values[-1] == "–"
    assert chromium.run(state)[1] == "descending"
    chromium.click(head.format(1))
    names = [name.lower() for name in _column(chromium, 0)]
    assert [name for name in names if name[0].isalpha()] == sorted(name for name in names if name[0].isalpha())
    assert chromium.run(state)[:2] == ["ascending", "none"]


def test_negative_differences_and_powers_sort_as_numbers(chromium, tmp_path):
    rows = [{"row": i, "x": x} for i, x in enumerate(["+0.1 [0, 1]", "-0.3 [0, 1]", None, "2e-05", "1,200", "9%"])]
    (tmp_path / "t.html").write_text(page("t", f"<div id=leaderboard>{table(Table.of(rows))}</div>"))
    chromium.open(tmp_path / "t.html")
    chromium.click("th:nth-child(2) button")
    assert _column(chromium, 1) == ["-0.3 [0, 1]", "2e-05", "+0.1 [0, 1]", "9%", "1,200", "–"]


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_only_tables_are_wider_than_a_phone(chromium, file, width):
    chromium.size(width)
    chromium.open(file)
    chromium.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    wide = """return [...document.querySelectorAll('main *')].filter(
        e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName)"""
    assert chromium.run(wide) == []


def test_print_shows_all_configurations(chromium, file):
    chromium.size(1200)
    chromium.open(file)
    chromium.devtools("Page.printToPDF")
    assert chromium.run("return [...document.querySelectorAll('details')].every(d => d.open)")


def test_text_contrasts_in_the_dark(chromium, file):
    chromium.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    chromium.open(file)
    ink = (
        "return getComputedStyle(document.querySelector(arguments[0])).color.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    )
    ground = "return matchMedia('(prefers-color-scheme: dark)').matches && getComputedStyle(document.documentElement).colorScheme"
    assert "dark" in chromium.run(ground)
    for selector in ("p", "th button", "nav a"):
        assert max(chromium.run(ink, selector)) > 200
    picture = "return getComputedStyle(document.querySelector('figure img')).backgroundColor"
    assert chromium.run(picture) == "rgb(255, 255, 255)"
    chromium.devtools("Emulation.setEmulatedMedia", features=[])


def test_one_seed_compares_runs_and_says_nothing_of_methods(tmp_path):
    design = make_design(["lora", "dora"], seeds=(0,), margin=0.05)
    study = make_study(tmp_path / "study", design, skill={"lora": 0.2, "dora": 0.9})
    assert study.comparison("dora").difference.excludes_zero
    columns = {name for row in study.leaderboard.rows for name, value in row.items() if value is not None}
    said = [row.get("verdict") for row in study.leaderboard.rows]
    assert "P(best)" not in columns
    assert "better" not in said
    assert "this run higher" in said
    assert "this run higher" in set(study.to_pandas()["verdict"])
    assert "not the methods" in verdict_words(study)[0]
    assert "not the methods" in study.leaderboard.note


@pytest.mark.parametrize("seen", [(), ("rows", "base", "leaderboard")])
def test_of_a_study_that_was_moved_while_it_was_open_one_line_says_so(tmp_path, seen):
    """``seen``: what was read before, and is kept."""
    study = make_study(tmp_path / "study", make_design(("lora", "dora")))
    for name in seen:
        getattr(study, name)
    shutil.move(tmp_path / "study", tmp_path / "moved")
    for ask in (str, Study.report, Study.to_pandas, lambda study: study.costs, lambda study: study.complete):
        with pytest.raises(UserError, match="from where it is now"):
            ask(study)
    assert str(Study.load(tmp_path / "moved").leaderboard)

"""Figures of a study show the numbers that its tables hold, and stay readable with thirty rows."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text

from rlvr_lite import methods
from rlvr_lite.errors import UserError
from rlvr_lite.study import figures
from rlvr_lite.training import smooth
from tests.study.fake import make_design, make_study

DRAWN = {
    "share": figures.accuracy_against_share,
    "memory": figures.pareto,
    "time": lambda study: figures.pareto(study, "time"),
    "forest": figures.forest,
    "reward": figures.reward_curves,
    "rates": figures.learning_rate_curves,
}
SKILL = {"lora": 0.4, "dora": 0.7, "pissa": 0.41, "ln_tuning": 0.25}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    design = make_design(tuple(SKILL), seeds=(0, 1, 2), margin=0.1)
    return make_study(tmp_path_factory.mktemp("study"), design, skill=SKILL)


@pytest.fixture(scope="module")
def thirty(tmp_path_factory):
    names = {f"row number {i}": "lora" for i in range(30)}
    design = make_design(names, tune="none", seeds=(0, 1))
    return make_study(
        tmp_path_factory.mktemp("thirty"), design, skill={name: 0.3 + i / 90 for i, name in enumerate(names)}
    )


def _points(axis):
    """(x, value, low, high) of every error bar."""
    for bar in (c for c in axis.containers if isinstance(c, ErrorbarContainer)):
        (x,), (y,) = bar.lines[0].get_data()
        low, high = sorted(bar.lines[2][0].get_segments()[0][:, 1])
        yield pytest.approx((x, y, low, high), abs=1e-9)


def _names(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_accuracy_stands_against_the_share_with_its_interval(study):
    (axis,) = figures.accuracy_against_share(study).axes
    whole = figures.base_parameters(study)
    assert whole == methods.Layout.of_config(_tiny()).parameters
    found = list(_points(axis))
    for label in study.rows:
        a = study.accuracy(label)
        assert (100 * study.trained_parameters(label) / whole, a.value, a.low, a.high) in found
    assert axis.get_xscale() == "log"
    assert {*study.rows, "untrained base"} == set(_names(axis.get_figure()))


def _tiny():
    from transformers import AutoConfig

    from rlvr_lite import bases

    return AutoConfig.from_pretrained(bases.locate("tiny").folder)


def test_a_base_that_is_not_here_leaves_the_number_of_parameters(study, monkeypatch):
    monkeypatch.setattr(figures, "base_parameters", lambda _: None)
    (axis,) = figures.accuracy_against_share(study).axes
    assert "%" not in axis.get_xlabel()
    counts = [point.expected[0] for point in _points(axis)]
    assert sorted(counts) == sorted(study.trained_parameters(label) for label in study.rows)


def test_a_report_never_fetches_a_base(monkeypatch):
    from rlvr_lite import bases

    monkeypatch.setattr(bases, "locate", lambda *_: pytest.fail("looked for the weights"))
    assert figures._parameters.__wrapped__("nobody/nothing-of-this-name", None) is None


@pytest.mark.parametrize(("cost", "fact"), [("memory", "peak_memory"), ("time", "train_seconds")])
def test_pareto_shows_cost_and_accuracy(study, cost, fact):
    (axis,) = figures.pareto(study, cost).axes
    unit = 2**20 if cost == "memory" else 1
    expected = sorted(getattr(study, fact)(label) / unit for label in study.rows)
    assert sorted(point.expected[0] for point in _points(axis)) == pytest.approx(expected)


def test_pareto_refuses_an_unknown_cost(study):
    with pytest.raises(UserError, match="memory"):
        figures.pareto(study, "money")


def test_nothing_beats_the_front_and_the_front_beats_the_rest():
    rng = np.random.default_rng(0)
    points = {str(i): (float(c), float(a)) for i, (c, a) in enumerate(rng.integers(0, 6, (40, 2)))}

    def beats(a, b):
        return points[a][0] <= points[b][0] and points[a][1] >= points[b][1] and points[a] != points[b]

    front = figures.pareto_front(points)
    for name in points:
        beaten = any(beats(other, name) for other in points)
        assert not (name in front and beaten)
        assert beaten or any(points[name] == points[other] for other in front)


def test_forest_shows_every_difference_with_its_verdict(study):
    figure = figures.forest(study)
    (axis,) = figure.axes
    rows = {label.get_text(): place for label, place in zip(axis.get_yticklabels(), axis.get_yticks(), strict=True)}
    assert set(rows) == set(study.rows) - {"lora"}
    lines = [line.get_xydata().tolist() for line in axis.lines]
    for label, place in rows.items():
        d = study.comparison(label).difference
        assert [[d.low, place], [d.high, place]] in lines
        assert [[d.value, place]] in lines
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {study.comparison(label).words.partition(",")[0] for label in rows}
    assert {"better", "worse"} <= legend
    (shade,) = axis.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx((-study.margin, study.margin))


def test_reward_curves_hold_every_seed_between_the_edges_of_their_band(study):
    (axis,) = figures.reward_curves(study).axes
    bands = [c for c in axis.collections if isinstance(c, FillBetweenPolyCollection)]
    for row, line, band in zip(study.rows.values(), axis.lines, bands, strict=True):
        seeds = np.array([smooth([m["reward"] for m in run.metrics()]) for run in row.runs.values()])
        assert line.get_ydata() == pytest.approx(seeds.mean(axis=0))
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((seeds.min(), seeds.max()))


@pytest.mark.parametrize("name", ["lora", "W" * 26, "<b>red $\\frac{ 5m"])
def test_the_name_at_the_end_of_a_curve_lies_inside_of_the_figure(tmp_path, name):
    figure = figures.reward_curves(make_study(tmp_path, make_design({name: "lora", "dora": "dora"})))
    figure.draw_without_rendering()
    assert all(text.get_window_extent().x1 <= figure.bbox.width for text in figure.axes[0].texts)


def test_rows_of_equal_rollouts_stand_against_completions(tmp_path):
    design = make_design(("lora",), tune="none", budget=160)
    (axis,) = figures.reward_curves(make_study(tmp_path, design)).axes
    assert axis.get_xlabel() == "completions drawn"
    assert axis.lines[0].get_xdata()[-1] == 160


def test_reward_area_is_the_mean_reward_of_training(study):
    rows = {row["row"]: row for row in figures.reward_areas(study)}
    for label, row in study.rows.items():
        means = [np.mean([m["reward"] for m in run.metrics()]) for run in row.runs.values()]
        assert rows[label]["area"] == pytest.approx(np.mean(means), abs=1e-4)
        assert rows[label]["lowest seed"] == pytest.approx(min(means), abs=1e-4)
        assert rows[label]["highest seed"] == pytest.approx(max(means), abs=1e-4)
    assert rows["dora"]["area"] > rows["ln_tuning"]["area"]


def test_learning_rate_curves_show_every_trial_the_good_band_and_the_choice(study):
    figure = figures.learning_rate_curves(study)
    bands = {row["row"]: row for row in study.learning_rates}
    for axis, row in zip(figure.axes, study.rows.values(), strict=False):
        assert axis.get_title() == row.label
        curves = [c.lines[0] for c in axis.containers if isinstance(c, ErrorbarContainer)]
        for rung, curve in enumerate(curves):
            drawn: dict[float, list[float]] = {}
            for t in row.search:
                if t.rung == rung:
                    drawn.setdefault(t.learning_rate, []).append(t.score.value)
            assert {len(scores) for scores in drawn.values()} == {1 + rung}  # two seeds in the fine pass
            trials = [(rate, np.mean(scores)) for rate, scores in sorted(drawn.items())]
            assert pytest.approx(np.array(trials)) == np.asarray(curve.get_data()).T
        assert len(curves) == 2
        (band,) = axis.patches
        assert band.get_x() < bands[row.label]["good from"] <= bands[row.label]["to"] < band.get_x() + band.get_width()
        assert any(set(line.get_xdata()) == {row.learning_rate} for line in axis.lines)


def test_thirty_rows_keep_their_names_apart(thirty):
    figure = figures.accuracy_against_share(thirty)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    boxes = [Text.get_window_extent(text) for text in axis.texts if text.get_text() != "untrained base"]
    assert len(boxes) == 30
    overlapping = sum(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert overlapping <= 2
    assert {label.get_text() for label in figures.forest(thirty).axes[0].get_yticklabels()} == set(thirty.rows) - {
        "row number 0"
    }
    panels = [axis for axis in figures.reward_curves(thirty).axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == list(thirty.rows)
    looks = figures._looks(thirty)
    assert len(set(looks.values())) == 30


def test_any_text_may_name_a_row_and_a_failed_one_is_left_out(tmp_path):
    labels = ("lora", r"$\frac{", "two\nlines " + "long " * 30, "<script>", "failed")
    design = make_design(dict.fromkeys(labels, "lora"), seeds=(0,))
    study = make_study(tmp_path, design, failing={"failed": "out of memory"})
    for draw in DRAWN.values():
        draw(study).savefig(io.BytesIO(), format="svg")
    names = {label.get_text() for label in figures.forest(study).axes[0].get_yticklabels()}
    assert len(names) == 3
    assert r"\$\frac{" in names
    assert "failed" not in names


@pytest.mark.parametrize("draw", DRAWN.values(), ids=list(DRAWN))
def test_a_study_that_has_only_begun_says_so(draw, tmp_path):
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        draw(make_study(tmp_path, make_design(("lora", "dora")), until=0))


def test_memory_is_shown_only_where_rows_differ_in_it(study, tmp_path, monkeypatch):
    assert study.memory_differs
    assert "peak MiB" in study.costs.columns
    held = {label: (500 << 20) + place for place, label in enumerate(study.rows)}  # an allocator's noise
    monkeypatch.setattr(type(study), "peak_memory", lambda self, label: held[label])
    assert "peak MiB" not in study.costs.columns
    assert "500 MiB" in study.costs.note
    with pytest.raises(UserError, match="time"):
        figures.pareto(study, "memory")
    assert "against memory" not in study.report(tmp_path / "report.html").read_text(encoding="utf-8").lower()


def test_a_study_in_pandas_is_numbers(study):
    frame = study.to_pandas()
    assert list(frame["row"]) == [row["row"] for row in study.leaderboard if row["row"] in study.rows]
    numbers = frame.drop(columns=["row", "verdict"])
    assert {dtype.kind for dtype in numbers.dtypes} == {"f"}
    for _, row in frame.iterrows():
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["accuracy"] == study.accuracy(row["row"]).value
    assert frame["difference"].isna().sum() == 1  # the reference

"""The Spectrum object: sentences, tables, plots, JSON, and methods that train vectors."""

import itertools
import json

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure

from rlvr_lite.analysis.spectrum import Spectrum, Update, compare_updates
from rlvr_lite.errors import UserError
from tests.analysis.test_spectrum import make_factors, make_weight


@pytest.fixture(scope="module")
def spectrum() -> Spectrum:
    """A random update and one in the leading directions, over two layers of three modules."""
    lora, pissa = [], []
    for layer in range(2):
        for i, (module, shape) in enumerate({"q_proj": (40, 40), "gate_proj": (60, 40), "down_proj": (40, 60)}.items()):
            weight, name = make_weight(shape, seed=10 * layer + i), f"model.layers.{layer}.{module}"
            u, _, vh = torch.linalg.svd(weight, full_matrices=False)
            lora.append(Update(name, weight, make_factors(shape, seed=100 + 10 * layer + i)))
            pissa.append(Update(name, weight, (u[:, :4], vh[:4], 0.1)))
    rows = {
        "lora": [{"step": i, "spectrum/top_right": 1.0, "spectrum/relative_norm": 0.01 * i} for i in (10, 20)],
        "pissa": [{"step": 10, "reward": 0.5}],
    }
    return compare_updates({"lora": lora, "pissa": pissa}, trajectories=rows)


@pytest.fixture(scope="module")
def vectors() -> Spectrum:
    """A run that trains norms only: one of two moved, in half of its entries."""
    change = torch.tensor([0.1, 0.0, -0.2, 0.0])
    updates = [Update("norm", 2 * torch.ones(4), dense=change), Update("norm2", torch.ones(4), dense=0 * change)]
    return compare_updates({"ln_tuning": updates})


def test_words_say_how_far_from_random(spectrum):
    words = spectrum.words()
    assert len(words) == 4
    assert "lora, input directions" in words[0]
    assert "as by chance" in words[0]
    assert "pissa, output directions: 1" in words[3]
    assert "as by chance" not in words[3]
    assert "0.00x random in the bottom 10 %" in words[3]


def test_tables_hold_the_runs_the_layers_the_shares_and_the_pairs(spectrum):
    rows = list(spectrum.table())
    assert [row["run"] for row in rows] == ["lora", "pissa"]
    assert rows[1]["in: top 10 %"] > 9 > rows[0]["in: top 10 %"]
    assert rows[0]["matrices"] == 6
    layers = list(spectrum.layers("pissa"))
    assert [row["matrix"] for row in layers][:2] == ["model.layers.0.q_proj", "model.layers.0.gate_proj"]
    captured = list(spectrum.captured())
    assert [(row["run"], row["side"]) for row in captured] == [
        (run, side) for run in ("lora", "pissa") for side in ("in", "out")
    ]
    assert captured[2]["top r"].startswith("100.0%")
    (pair,) = spectrum.overlap_table()
    assert pair["runs"] == "lora / pissa"
    assert abs(pair["cosine"]) < 0.3
    with pytest.raises(UserError, match="pissa"):
        spectrum.layers("pisa")


def test_text_holds_words_before_the_table(spectrum):
    text = str(spectrum)
    assert text.index(spectrum.words()[0]) < text.index("Where the update went") < text.index("Overlap")
    assert repr(spectrum) == f"Spectrum({', '.join(run.label for run in spectrum.runs)})"


def test_json_round_trip(spectrum, vectors):
    for found in (spectrum, vectors):
        text = json.dumps(found.to_dict(), allow_nan=False)
        again = Spectrum.from_dict(json.loads(text))
        assert again == found
        assert str(again) == str(found)
    for wrong in ({}, {"runs": [{"label": 1}], "overlaps": [], "trajectories": {}}, {"runs": 3}):
        with pytest.raises(UserError):
            Spectrum.from_dict(wrong)


def test_randomised_base_goes_through_json_plots_and_words():
    weight = make_weight((80, 60))
    found = compare_updates({"lora": [Update("q", weight, make_factors((80, 60)))]}, rank=12)
    assert Spectrum.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.runs[0].bins("right")[9] is None
    assert "bottom" not in found.words()[0]
    assert "randomised" in found.note()
    assert next(iter(found.table()))["in: bottom 10 %"] is None
    found.plot()


@pytest.mark.parametrize(
    ("kind", "axes"), [("bins", 2), ("cumulative", 2), ("layers", 5), ("trajectories", 3), ("all", 12)]
)
def test_plots_show_what_they_should(spectrum, kind, axes):
    figure = spectrum.plot(kind)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == axes
    assert not plt.get_fignums()  # closed: a notebook shows it once
    figure.canvas.draw()


def test_bars_of_the_plot_are_the_ratios(spectrum):
    axis = spectrum.plot("bins").axes[0]
    heights = [patch.get_y() + patch.get_height() for patch in axis.patches]
    expected = [average.ratio for run in spectrum.runs for average in run.bins("right")]
    assert heights == pytest.approx(expected)


def test_cumulative_curve_ends_where_the_random_line_does_for_a_square_weight():
    weight = make_weight((40, 40))
    run = compare_updates({"a": [Update("q", weight, make_factors((40, 40)))]}).runs[0]
    curve, slope = run.curve("right")
    assert slope == 1
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(1)
    assert all(a <= b for a, b in itertools.pairwise(curve))
    assert curve[5] == pytest.approx(run.bins("right")[0].energy)


def test_unknown_plots_are_refused(spectrum, vectors):
    with pytest.raises(UserError, match="layers"):
        spectrum.plot("layer")
    with pytest.raises(UserError):
        vectors.plot()


def test_html_holds_table_and_picture(spectrum, vectors):
    page = spectrum._repr_html_()
    assert page.index("<li>") < page.index("<table>") < page.index("data:image/png;base64,")
    assert "data:image" not in vectors._repr_html_()


def test_vectors_say_what_is_measured_instead(vectors):
    (line,) = vectors.words()
    assert "ln_tuning trains 2 vectors and no matrix" in line
    assert "25% of the entries moved" in line
    first, second = vectors.runs[0].vectors
    assert first.relative_norm == pytest.approx(0.05**0.5 / 4)
    assert first.largest == pytest.approx(0.2)
    assert (first.moved, second.moved) == (0.5, 0.0)
    assert next(iter(vectors.table()))["vectors"] == 2
    assert "top/bottom" not in vectors.note()


def test_vector_and_matrix_runs_stand_in_one_table(vectors):
    weight = make_weight((40, 40))
    updates = [Update("norm", torch.ones(4), dense=torch.ones(4) * 0.1)]
    both = compare_updates({"lora": [Update("q", weight, make_factors((40, 40)))], "ln": updates})
    assert [row["run"] for row in both.table()] == ["lora", "ln"]
    both.plot()
    with pytest.raises(UserError, match="norm"):
        compare_updates({"ln": [Update("norm", torch.ones(4), dense=torch.ones(3))]})


def test_a_matrix_with_fewer_than_ten_directions_does_not_shift_the_bins_of_the_others():
    big, small = make_weight((40, 40)), make_weight((6, 40))
    updates = [Update("q", big, make_factors((40, 40))), Update("k", small, make_factors((6, 40)))]
    alone, both = compare_updates({"a": updates[:1]}).runs[0], compare_updates({"a": updates}).runs[0]
    assert both.bins("right") == alone.bins("right")
    assert len(both.matrices[1].right.bins) == 6

"""A figure is the value of its cell: it shows itself once, on white, whether or not pyplot has been told to draw."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from rlvr_lite.figure import Figure


@pytest.fixture
def figure():
    found = Figure(figsize=(2, 1))
    found.subplots().plot([0, 1])
    return found


def test_a_notebook_shows_it_without_pyplot(figure):
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    data, _ = formatter.format(figure)
    assert set(data) == {"text/plain", "image/png"}
    assert imread(io.BytesIO(data["image/png"])).shape[:2] == (110, 220)


def test_its_ground_is_white_and_opaque(figure):
    corner = imread(io.BytesIO(figure._repr_png_()))[0, 0]
    assert np.allclose(corner, 1)


def test_as_html_it_carries_its_own_bytes_and_no_markup_of_its_description(figure):
    text = figure.to_html('"><script>')
    assert "<script>" not in text
    data = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert data is not None
    assert base64.b64decode(data[1]) == figure._repr_png_()

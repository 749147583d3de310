"""The demo's page, as a browser shows it on a screen, a tablet and a phone, in both themes."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from rlvr_lite.demo import demo
from tests.study.browser import browser

_CUT = """return [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.right > innerWidth + 1 || box.left < -1 || e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX != 'visible';
}).map(e => e.tagName + ' ' + e.className)"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    demo(out, methods=("lora", "dora", "full"), steps=2, progress=False)
    return out / "index.html"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_of_the_page_is_cut_at_any_width(page, tmp_path):
    """``RLVR_LITE_RENDERED`` names a folder that keeps the screenshots."""
    kept = Path(os.environ.get("RLVR_LITE_RENDERED") or tmp_path)
    kept.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for theme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": theme}]
            chromium.devtools("Emulation.setEmulatedMedia", features=features)
            for width in (1280, 800, 390):
                chromium.size(width, 2400)
                chromium.open(page)
                (kept / f"demo-{theme}-{width}.png").write_bytes(base64.b64decode(chromium.ask("GET", "/screenshot")))
                assert chromium.run(_CUT) == []
                assert chromium.run("return document.documentElement.scrollWidth") <= width
                ink = "return getComputedStyle(document.body).color.match(/\\d+/g).slice(0, 3).map(Number)"
                assert (max(chromium.run(ink)) > 200) is (theme == "dark")
                shown = "const i = document.images[0]; return [i.naturalWidth, i.naturalHeight]"
                wide, high = chromium.run(shown)
                assert (high > wide) is (width < 640)

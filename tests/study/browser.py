"""A headless Chromium driven through chromedriver's own protocol (W3C WebDriver): no library needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_QUIET = ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER = "\ue007"


class Browser:
    """One session of the browser."""

    def __init__(self, address: str):
        self.address = address
        self.session = ""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One command of the protocol."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{self.session}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        """Show a file."""
        self.ask("POST", "/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns in the page."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": arguments})

    def find(self, selector: str) -> str:
        """The first element of a CSS selector."""
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[_ELEMENT]}"

    def click(self, selector: str) -> None:
        """Click it, where it lies on the screen."""
        self.ask("POST", f"{self.find(selector)}/click", {})

    def press(self, selector: str, key: str) -> None:
        """Press a key on it."""
        self.ask("POST", f"{self.find(selector)}/value", {"text": key})

    def devtools(self, command: str, **options: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": options})

    def size(self, width: int, height: int = 844) -> None:
        """Show pages as a screen of this width does."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def console(self) -> list[str]:
        """What the console said since it was last asked."""
        return [row["message"] for row in self.ask("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Addresses of files and networks that pages asked for since it was last asked."""
        rows = [json.loads(row["message"])["message"] for row in self.ask("POST", "/se/log", {"type": "performance"})]
        sent = [row["params"]["request"]["url"] for row in rows if row["method"] == "Network.requestWillBeSent"]
        return [address for address in sent if not address.startswith(("data:", "chrome:"))]


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh browser with a profile of its own; skips where there is none."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chromium-browser")
    if driver is None or chromium is None:
        pytest.skip("needs chromium and chromedriver (apt: chromium, chromium-driver)")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            port = next(match[1] for line in lines if (match := re.search(r"successfully on port (\d+)", line)))
            found = Browser(f"http://127.0.0.1:{port}")
            options = {"binary": chromium, "args": [*_QUIET, "disable-sync", f"user-data-dir={profile}"]}
            wishes = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            answer = found.ask("POST", "/session", {"capabilities": {"alwaysMatch": wishes}})
            found.session = f"/session/{answer['sessionId']}"
            try:
                yield found
            finally:  # the driver would leave the browser behind
                found.ask("DELETE", "")
        finally:
            process.terminate()

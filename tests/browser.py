"""A real browser, for the tests of pages; they are skipped with the reason where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def data_of(page: str) -> Any:
    """Return what the script of a page reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


@contextmanager
def browser() -> Iterator[Any]:
    """A running Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1280, height: int = 900, **more: Any):
    """Open a page from disk; fail if it complains, or asks for anything that it does not hold."""
    page = browser.new_page(viewport={"width": width, "height": height}, **more)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: r.url[:5] in ("data:", "file:", "blob:")
            or complaints.append(r.url))  # fmt: skip
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    yield page
    assert complaints == []
    page.close()


def screenshot(page: Any, name: str) -> None:
    """Keep a picture of a page where DFF_SCREENSHOTS says, if it does."""
    if folder := os.environ.get("DFF_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")

"""Shared fixtures: the real weights and photos, where they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

from dff.cli import main
from tests.browser import browser

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and photos beside the checkout."""
    if not (SHARED / "models").is_dir():
        pytest.skip("needs the folder of real weights and photos beside the checkout (../shared)")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _one_command_line():
    """Build the commands once a worker, as a process of a user's does, and not for each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="module")
def chromium():
    """A browser, for a module: its event loop is in the way of notebooks and of forks."""
    with browser() as running:
        yield running


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Two photos to work on; run a command there."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8)).save(name)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([*map(str, words)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return end.value.code or 0, out, err

    return run

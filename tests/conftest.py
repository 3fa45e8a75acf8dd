"""Shared fixtures: the real weights and photos, where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dff.cli import main

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and photos beside the checkout."""
    if not (SHARED / "models").is_dir():
        pytest.skip("needs the folder of real weights and photos beside the checkout (../shared)")
    return SHARED


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

"""A run that is killed, anywhere, goes on and ends in the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.colocalized import photos

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_ends_in_the_same_bytes(tmp_path):
    """Killed at renames spread over all stages (so at each stage), and at 50 random moments."""
    data = photos(tmp_path / "data", 10)
    result = subprocess.run(
        [sys.executable, "-m", "tests.killed", str(data), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["different"] == []
    assert report["every"] >= 12
    assert report["random"] >= 50

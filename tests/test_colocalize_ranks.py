"""Several processes on one run."""

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
def test_ranks_agree_and_a_dead_one_leaves_a_run_that_resumes(tmp_path):
    data = photos(tmp_path / "data", 20)
    result = subprocess.run(
        [sys.executable, "-m", "tests.ranked", str(data), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert all(not any(ends) for ends in report["ends"].values()), (report, result.stderr)
    # of values up to 1: sums in another order may end a fit one look earlier, at its tolerance
    assert max(report["differences"].values()) < 1e-2, report
    assert report["dead"] == [1, -9], report
    assert "one of them ended" in result.stderr
    assert report["dead after"] < 40
    assert report["resumed"] == [0]
    assert report["random"] == {"kills": 10, "different": 0}, (report, result.stderr)
    assert report["resumed the same"]

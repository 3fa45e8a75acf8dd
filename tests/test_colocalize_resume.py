"""A run that is killed, anywhere, goes on and ends in the same bytes."""

from __future__ import annotations

import json

from tests.colocalized import photos
from tests.forked import needs_fork, said_by
from tests.killed import KILLS, main


@needs_fork
def test_a_killed_run_ends_in_the_same_bytes(tmp_path):
    """Killed at renames spread over all stages (so at each stage), and at random moments."""
    said_by(main, photos(tmp_path / "data", 10), tmp_path, folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["different"] == []
    assert report["every"] >= 12
    assert report["random"] >= 2 * KILLS

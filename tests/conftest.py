"""Shared fixtures: the real weights and photos, where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and photos beside the checkout."""
    if not (SHARED / "models").is_dir():
        pytest.skip("needs the folder of real weights and photos beside the checkout (../shared)")
    return SHARED

"""Processes that are forks of one which has imported what they need: importing takes longest."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.colocalized import ON_THE_WAY

CONTEXT = "forkserver"
PRELOADED = ("tests.forked", "tests.killed", "tests.ranked", *ON_THE_WAY)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def preload() -> None:
    """Say what the process that is forked imports; before the first fork, once for all tests."""
    multiprocessing.set_forkserver_preload([*PRELOADED])


def said_by(work: Callable[..., None], *arguments: object, folder: Path) -> str:
    """Return what `work` and its children write to stderr; fail where it fails."""
    preload()
    said = folder / "said.txt"
    process = multiprocessing.get_context(CONTEXT).Process(
        target=_writing_to, args=(said, work, *arguments)
    )
    process.start()
    process.join(timeout=600)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0, said.read_text()
    return said.read_text()


def _writing_to(said: Path, work: Callable[..., None], *arguments: object) -> None:
    file = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 2)
    work(*arguments)

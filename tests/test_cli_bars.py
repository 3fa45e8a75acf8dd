"""Bars of long commands: on a terminal a stage each with the time left, elsewhere nothing."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from dff.cli import main
from dff.cli.bars import bars
from dff.cli.console import settings
from tests.colocalized import photos
from tests.test_cli import FACTORY


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch) -> Terminal:
    """Return what stands in for stderr; not a fixture, since pytest sets stderr after those."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return shown


def test_a_bar_says_how_much_how_fast_and_how_long(monkeypatch):
    shown = terminal(monkeypatch)
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("dff.cli.bars.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with bars(["reading"]) as report:
        report("reading", 0, 1000)
        report("reading", 100, 1000)
        report("wri[/]ting\x1b", 1, 4)
        report("factorizing", 0, 0)
    text = shown.getvalue()
    assert "100 of 1,000 images, 50/s" in text
    assert "1 of 4" in text
    assert "wri[/]ting\\x1b" in text
    assert "factorizing" in text


def test_nothing_where_nobody_looks(monkeypatch):
    shown = terminal(monkeypatch)
    with bars() as report:
        report("reading", 1, 2)
    assert "reading" in shown.getvalue()
    shown = terminal(monkeypatch)
    monkeypatch.setattr(settings, "quiet", True)
    with bars() as report:
        report("reading", 1, 2)
    monkeypatch.setattr(settings, "quiet", False)
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    with bars() as report:
        report("reading", 1, 2)
    assert shown.getvalue() == plain.getvalue() == ""


def test_every_stage_of_a_run_has_a_bar(tmp_path, monkeypatch):
    """Of the run and of its report."""
    data, shown = photos(tmp_path / "data", 20), terminal(monkeypatch)
    (tmp_path / "net.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["colocalize", str(data), "--out", "run", "--model", "net.py:build", "--size", "32",
              "-k", "2:3", "--report"])  # fmt: skip
    assert not ended.value.code
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    for stage in (
        "reading and running the model", "choosing the number of concepts", "factorizing",
        "placing concepts", "writing tables", "cutting out examples", "drawing images",
    ):  # fmt: skip
        assert stage in seen, stage
    assert "20 of 20" in seen
    assert re.search(r"left: \d:\d\d:\d\d", seen)
    assert "18 of 18" in seen, "fits: of two numbers of concepts, nine each"

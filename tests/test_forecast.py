"""What a run would take, said before it begins."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dff import RunOptions, colocalize
from dff.cli import main
from dff.colocalization import dry_run, open_dataset, pipeline
from dff.colocalization.forecast import Trial
from dff.colocalization.ranks import Ranks
from dff.colocalization.run.folder import RunFolder
from dff.demo.creatures import render
from dff.errors import OutputError, UsageError
from tests.colocalized import toy
from tests.test_cli import FACTORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("photos")
    for i in range(60):
        Image.fromarray(render(i, size=64).image).save(where / f"{i:03}.png")
    (where / "999.png").write_bytes(b"no image")
    return where


def test_a_trial_is_spread_over_the_dataset(folder):
    trial = Trial(open_dataset(folder), 50)
    assert len(trial) == 31
    assert list(trial.paths[:2]) == ["000.png", "002.png"]
    assert trial.file(1).endswith("002.png")


def test_a_forecast_is_near_what_the_run_takes(folder, tmp_path):
    expected = dry_run(folder, tmp_path / "run", model="demo", concepts=3)
    assert not (tmp_path / "run").exists()
    run = colocalize(folder, tmp_path / "run", model="demo", concepts=3)
    assert (expected.images, expected.passes, expected.unreadable) == (61, 1, 1)
    kept = sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file())
    assert expected.kept == pytest.approx(kept, rel=0.35)
    assert expected.rows == pytest.approx(run.state["counts"]["rows"], rel=0.05)
    assert expected.disk > expected.kept
    assert set(expected.seconds) == {"extract", "fit", "encode", "tables", "exemplars", "opening"}
    assert all(seconds >= 0 for seconds in expected.seconds.values())
    assert run.state["rates"]["extract"] > 0
    assert run.summary()["images_per_second"] == run.state["rates"]


def test_a_sample_takes_two_passes_its_memory_and_its_disk(folder, tmp_path, monkeypatch):
    options = RunOptions(memory="200K")
    expected = dry_run(folder, tmp_path / "run", model="demo", concepts=3, options=options)
    assert expected.passes == 2
    assert expected.memory <= 200 * 2**10
    sizes, close = [], RunFolder.close

    def measured(run):
        sizes.extend(p.stat().st_size for p in (tmp_path / "run").rglob("*") if p.is_file())
        close(run)

    monkeypatch.setattr(RunFolder, "close", measured)
    colocalize(folder, tmp_path / "run", model="demo", concepts=3, options=options)
    assert expected.disk == pytest.approx(sum(sizes), rel=0.1)  # a quarter of that are maps
    assert expected.seconds["encode"] > expected.seconds["tables"]


def test_too_little_disk_is_said_before_the_run_begins(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"needs 0\.0 GB for activations.*0\.0 GB are free"):
        colocalize(folder, tmp_path / "run", model=toy(), concepts=3)
    assert not list((tmp_path / "run").glob("maps/*"))
    monkeypatch.undo()
    assert colocalize(folder, tmp_path / "run", model=toy(), concepts=3).state["exact"]


def test_what_is_written_counts_as_room(folder, tmp_path, monkeypatch):
    colocalize(folder, tmp_path / "run", model=toy(), concepts=3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    colocalize(folder, tmp_path / "run", model=toy(), concepts=3)


def test_the_command(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "net.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    words = ["colocalize", str(folder), "--out", "run", "--model", "net.py:build", "--size", "32"]
    with pytest.raises(SystemExit) as left:
        main([*words, "-k", "3", "--dry-run"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    for word in ("61", "one pass", "disk, at most", "time, one process", "1 of the 31 tried"):
        assert word in printed
    with pytest.raises(SystemExit):
        main([*words, "-k", "3", "--dry-run", "--json"])
    assert json.loads(capsys.readouterr().out)["images"] == 61
    assert not (tmp_path / "run").exists()


def test_a_run_of_nothing_readable_says_so(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(np.random.default_rng(i).bytes(50))
    with pytest.raises(Exception, match="image"):
        dry_run(tmp_path, tmp_path / "run", model="demo", concepts=2)


def test_a_dry_run_is_of_one_process(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "start", lambda: Ranks(0, 2))
    with pytest.raises(UsageError, match="start it without torchrun"):
        pipeline.dry_run(folder, tmp_path / "run", model=toy())
    assert not (tmp_path / "run").exists()

"""Several processes on one run, on one node or two: equal to one, killed, or not of one mind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest
import torch
from torch.distributed import TCPStore

from dff.colocalization.run.folder import RunFolder
from dff.errors import RunError
from dff.manifest import Manifest
from tests.colocalized import colocalize, digest, photos
from tests.forked import needs_fork, said_by
from tests.ranked import main

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def ranked(part: str, count: int, folder: Path) -> tuple[dict, str]:
    """Return the report of a part of :mod:`tests.ranked`, and what its ranks said."""
    data = photos(folder / "data", count)
    said = said_by(main, part, data, folder, folder=folder)
    return json.loads((folder / "report.json").read_text()), said


@needs_fork
def test_every_file_is_the_same_for_any_number_of_ranks(tmp_path):
    report, said = ranked("equal", 20, tmp_path)
    assert not any(report["ends"]), said
    assert len(report["different"]) == 6
    assert not any(report["different"].values()), report


@needs_fork
def test_a_rank_killed_in_any_stage_leaves_a_run_that_ends_in_the_same_bytes(tmp_path):
    report, said = ranked("killed", 20, tmp_path)
    assert set(map(tuple, report["ends"].values())) == {(-9, 1)}, (report, said)
    assert "one of them ended" in said
    for rank in (0, 1):
        assert f"rank {rank} was started by torchrun, which has ended" in report["orphaned"]
    assert len(report["different"]) == 10
    for when, (ended, names) in report["different"].items():
        assert not any(ended), (when, said)
        assert names == [], when


@needs_fork
def test_ranks_of_another_mind_end_before_anything_is_written(tmp_path):
    report, said = ranked("unlike", 20, tmp_path)
    for name in ("fewer", "size", "time", "none", "model"):
        assert report["ends"][name] == [1, 1], (name, said)
        assert not report["written"][name], name
    for rank in (0, 1):
        for words in (
            "rank 1 lists 19 images, and rank 0 20 (left/014.png is not there on rank 1)",
            "left/014.png is of 5084 bytes",
            "2001-09-09 01:46:40 UTC on rank 1",
            "model weights is",
        ):
            assert any(f"rank {rank}: " in x and words in x for x in said.splitlines()), said
    assert "rank 0: rank 1 failed at opening the dataset and the model: there is no data" in said
    for name in ("behind", "ahead"):  # a clock that is three days off
        assert report["ends"][name] == [[0, 0], []], (name, said)


def test_a_file_of_another_node_that_is_late_is_waited_for(tmp_path, monkeypatch):
    Manifest(tmp_path).write({"run.json": "{}"})
    folder = RunFolder(tmp_path)
    folder.join({}, 0, of=2)
    other = Timer(0.5, lambda: Manifest(tmp_path, writer=1).write({"maps/0": b"late"}))
    other.start()
    assert folder.file("maps/0").read_bytes() == b"late"
    other.join()
    monkeypatch.setattr("dff.colocalization.run.folder.ARRIVAL", 0.1)
    folder.join({}, 0, of=2)
    with pytest.raises(RunError, match="damaged or gone"):
        folder.file("maps/1")


def node(data: Path, out: Path, port: int) -> subprocess.Popen:
    """Start one of two nodes: an agent of torchrun with a worker."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-conf",
            "is_host=false", "--local-addr", "127.0.0.1", "-m", "dff", "colocalize", str(data),
            "--out", str(out), "--model", "demo", "-k", "3", "--quiet",
        ],
        cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def power_off(agent: subprocess.Popen) -> None:
    """Kill an agent and its workers at once."""
    os.kill(agent.pid, signal.SIGSTOP)
    workers = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    for process in (*map(int, workers), agent.pid):
        os.kill(process, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_two_nodes_of_which_one_goes_down(tmp_path):
    data, out = photos(tmp_path / "data", 128), tmp_path / "two"
    ended = []
    for fails in (True, False):
        # The list of nodes is kept here: an agent that keeps it and ends a moment before the other
        # one leaves that waiting for five minutes.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        nodes = [node(data, out, store.port) for _ in range(2)]
        try:
            began = time.monotonic()
            while fails and not [*out.glob("work/rows/*")] and time.monotonic() - began < 120:
                time.sleep(0.01)
            if fails:
                power_off(nodes[1])
            said = [agent.communicate(timeout=240)[1] for agent in nodes]
        finally:
            for agent in nodes:
                agent.kill()
        ended.append([agent.returncode for agent in nodes])
        if fails:
            assert "one of them ended" in said[0], said
            assert json.loads((out / "run.json").read_text())["stages"]["exemplars"] == "to do"
    assert ended == [[1, -9], [0, 0]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the nodes have: layers are rounded otherwise with more
    try:
        alone = colocalize(data, tmp_path / "alone", model="demo", concepts=3)
    finally:
        torch.set_num_threads(threads)
    assert digest(out) == digest(alone.path)

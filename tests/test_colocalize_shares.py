"""How the work of a run is shared: between processes, and between threads of one."""

import threading
from pathlib import Path

import pytest

from dff.colocalization.stages import encode
from dff.colocalization.stages.network import Network
from dff.colocalization.stages.plan import CHUNK, FEWEST_IN_CHUNK, plan
from dff.errors import RunError
from tests.colocalized import colocalize, photos, small_chunks, toy


@pytest.mark.parametrize("images", [400, 1000, 3000, 9000, 50_000])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_have_equal_shares(images, ranks):
    chunks = plan(images, 64, 1280, memory=2**30, seed=0).chunks
    shares = [sum(map(len, chunks[rank::ranks])) for rank in range(ranks)]
    assert sum(shares) == images
    # One chunk more than others at most, where there are few of them.
    assert max(shares) - min(shares) <= min(CHUNK, max(FEWEST_IN_CHUNK, images / 32))
    assert max(shares) <= images / ranks * (1.29 if images == 400 else 1.1)


@pytest.mark.parametrize("images", [1, 31, 33, 2049, 10_000_000])
def test_chunks_are_whole_batches(images):
    chunks = plan(images, 64, 1280, memory=2**30, seed=0).chunks
    size = len(chunks[0])
    assert size == images or size % FEWEST_IN_CHUNK == 0
    assert size <= CHUNK
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert sum(map(len, chunks)) == images


SAMPLED = {"concepts": 2, "batch": 4, "workers": 2, "memory": 8 * 10 * 48}  # two passes


def test_the_network_runs_while_a_chunk_is_encoded(tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    real_encode, real_run, passes = encode.encode_chunk, Network.__call__, []
    running = threading.Event()

    def run(self, *arguments, **options):
        passes.append(threading.current_thread().name)
        if encoding.is_set():
            running.set()
        return real_run(self, *arguments, **options)

    encoding = threading.Event()

    def encoded(job, chunk, bank):
        if chunk.ids[0] == 0:
            encoding.set()
            assert running.wait(30), "the network waits for the encoder"
        return real_encode(job, chunk, bank)

    monkeypatch.setattr(Network, "__call__", run)
    monkeypatch.setattr(encode, "encode_chunk", encoded)
    colocalize(photos(tmp_path / "data"), tmp_path / "run", model=toy(), **SAMPLED)
    assert set(passes) == {threading.current_thread().name}


def test_what_the_encoder_runs_into_ends_the_run(tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    real = encode.encode_chunk

    def broken(job, chunk, bank):
        if chunk.ids[0] == 6:
            raise RunError("no more room")
        return real(job, chunk, bank)

    data = photos(tmp_path / "data")
    with monkeypatch.context() as patch, pytest.raises(RunError, match="no more room"):
        patch.setattr(encode, "encode_chunk", broken)
        colocalize(data, tmp_path / "run", model=toy(), **SAMPLED)
    kept = Path(tmp_path / "run/maps/00000.safetensors").stat().st_mtime_ns
    run = colocalize(data, tmp_path / "run", model=toy(), **SAMPLED)
    assert run.state["counts"]["images"] == 20
    assert Path(tmp_path / "run/maps/00000.safetensors").stat().st_mtime_ns == kept


def test_a_run_says_what_each_process_worked(tmp_path):
    run = colocalize(photos(tmp_path / "data", 8), tmp_path / "run", model=toy(), concepts=2)
    assert list(run.state["work"]) == list(run.state["stages"])
    for stage, ranks in run.state["work"].items():
        ((seconds, cpu),) = ranks
        assert 0 <= seconds <= run.state["timings"][stage] + 0.02
        assert cpu >= 0

"""Matrices larger than memory, and rows spread over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dff.errors import FactorizationError, UsageError
from dff.nmf import NMF, RowBlocks, SemiNMF
from dff.nmf.initialization import SAMPLE_ROWS
from dff.nmf.rows import PARTS_BLOCK_BYTES
from tests.forked import CONTEXT, needs_fork, preload
from tests.resident import COLUMNS, ROWS, K

ROOT = Path(__file__).resolve().parents[1]


def data(rows=2000, columns=32, k=5, *, seed=0):
    generator = np.random.default_rng(seed)
    w = generator.gamma(1.0, size=(rows, k)) * (generator.random((rows, k)) < 0.5)
    h = generator.gamma(1.0, size=(k, columns)) * (generator.random((k, columns)) < 0.5)
    return (w @ h + 0.3 * generator.random((rows, columns))).astype(np.float32)


def test_blocks_give_what_memory_gives():
    a = data()
    blocks = RowBlocks([a[:700], torch.from_numpy(a[700:710]), a[710:]])
    one, other = NMF(4), NMF(4)
    one.fit(a)
    codes = other.fit_transform(blocks)
    np.testing.assert_allclose(other.transform(blocks), codes, rtol=1e-4, atol=1e-4)
    assert other.reconstruction_err_ == pytest.approx(one.reconstruction_err_, rel=1e-3)


def test_the_number_of_workers_does_not_change_a_digit(monkeypatch):
    a = data(rows=9000)
    fits = []
    for count in (1, 2, 5):
        monkeypatch.setattr("dff.nmf.rows.workers", lambda entries, count=count: count)
        blocks = RowBlocks([a[i : i + 700] for i in range(0, 9000, 700)])
        parts = blocks.parts()
        assert len(parts) == count
        spans = [where for part in parts for where, _ in part.blocks()]
        assert [s.start for s in spans] == [0, *(s.stop for s in spans[:-1])]
        estimator = NMF(4, init=a[:4] + 0.1)
        fits.append((estimator.fit_transform(blocks), estimator.components_))
    for codes, components in fits[1:]:
        np.testing.assert_array_equal(codes, fits[0][0])
        np.testing.assert_array_equal(components, fits[0][1])


class Recomputed:
    """Blocks made anew on each look, as from files; counts how many are alive."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for seed in range(self.count):
            yield data(rows=5000, seed=seed % 3).astype(np.float16)


def test_large_blocks_are_never_held_together():
    source = RowBlocks(Recomputed(8))
    NMF(2).fit(np.ones((10, 4)))
    tracemalloc.start()
    model = NMF(3, precision="float32").fit(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert model.n_features_in_ == 32
    assert source.shape == (40_000, 32)
    whole = 40_000 * 32 * 4
    assert peak < whole  # numpy's share; the next test has torch's


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_stays_within_the_bound():
    result = subprocess.run(
        [sys.executable, "-m", "tests.resident"], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=True,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},  # other tests want the cores
    )  # fmt: skip
    report = json.loads(result.stdout)
    factors, sampled = 4 * K * (ROWS + COLUMNS), 4 * SAMPLE_ROWS * COLUMNS
    assert len(report) == 6
    kept = 1 << 24  # by the allocator, for later
    assert max(report.values()) < 3 * factors + sampled + PARTS_BLOCK_BYTES + kept, report


def test_memory_map_in_half_precision(tmp_path):
    a = data()
    np.save(tmp_path / "a.npy", a.astype(np.float16))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    model = NMF(4)
    codes = model.fit_transform(mapped)
    assert codes.dtype == np.float32
    assert model.reconstruction_err_ == pytest.approx(NMF(4).fit(a).reconstruction_err_, rel=1e-2)


def test_sources_that_cannot_be_read_again():
    with pytest.raises(UsageError, match="which runs once"):
        RowBlocks(block for block in [data()])
    with pytest.raises(FactorizationError, match=r"widths \[3, 4\]"):
        NMF(1).fit(RowBlocks([np.ones((2, 3)), np.ones((2, 4))]))
    with pytest.raises(FactorizationError, match="row blocks of shape"):
        NMF(1).fit(RowBlocks([np.ones(3)]))
    with pytest.raises(FactorizationError, match="0 rows"):
        NMF(1).fit(RowBlocks([]))


def forked(work, *args, ranks):
    """Run `work` on each of some ranks."""
    preload()
    mp.start_processes(work, args, nprocs=ranks, start_method=CONTEXT)


def join(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )


def fit_share(rank, world, folder, bounds, n_init):
    join(rank, world, folder)
    rows = data(bounds[-1])[bounds[rank] : bounds[rank + 1]]
    reduce, sizes = dist.all_reduce, []

    def counted(tensor, **options):
        sizes.append(tensor.numel())
        return reduce(tensor, **options)

    dist.all_reduce = counted
    for kind in (NMF, SemiNMF):
        sizes.clear()
        model = kind(4, distributed=True, n_init=n_init, tol=1e-5, max_iter=1000)
        codes = model.fit_transform(rows)
        assert codes.shape == (len(rows), 4)
        name = kind.__name__
        np.savez(
            f"{folder}/{name}{rank}.npz",
            codes=codes,
            components=model.components_,
            looks=model.n_iter_,
            full_sums=sizes.count(4 * (32 + 4)),
        )
    dist.all_reduce = reduce
    dist.destroy_process_group()


SHARES = {  # rows from one bound to the next are a rank's; how many starts
    "1 rank": ([0, 2000], 1),
    "2 ranks": ([0, 1300, 2000], 1),
    "4 ranks, one empty": ([0, 900, 900, 905, 2000], 1),
    "3 ranks, many starts": ([0, 1300, 1300, 2000], 4),
    "2 ranks, sampled": ([0, 11_000, 20_000], 1),
}


def fit_shares(rank, folder):
    for name, (bounds, n_init) in SHARES.items():
        if rank < len(bounds) - 1:
            fit_share(rank, len(bounds) - 1, f"{folder}/{name}", bounds, n_init)


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """What ranks have fitted together: four processes for all groups."""
    folder = tmp_path_factory.mktemp("shares")
    for name in SHARES:
        (folder / name).mkdir()
    forked(fit_shares, str(folder), ranks=4)
    return folder


@needs_fork
@pytest.mark.parametrize("name", SHARES)
def test_ranks_together_equal_one_process(shares, name):
    bounds, n_init = SHARES[name]
    a, ranks = data(bounds[-1]), range(len(bounds) - 1)
    for kind in (NMF, SemiNMF):
        parts = [np.load(shares / name / f"{kind.__name__}{rank}.npz") for rank in ranks]
        for part in parts:
            np.testing.assert_array_equal(part["components"], parts[0]["components"])
            if bounds[-1] <= 4096 and n_init == 1:  # else looks at the start are summed too
                assert part["full_sums"] == part["looks"]
        codes = np.concatenate([part["codes"] for part in parts])
        left = np.square(a - codes @ parts[0]["components"], dtype=np.float64).sum()
        alone = kind(4, n_init=n_init, tol=1e-5, max_iter=1000).fit(a)
        # Sums in another order can end a fit a pass sooner or later.
        assert left == pytest.approx(alone.reconstruction_err_**2, rel=2e-4)


def fit_with_trouble(rank, world, folder):
    join(rank, world, folder)
    a = data()
    if rank == 1:
        a[4, 2] = -1
    message = "row 4, column 2" if rank == 1 else "another rank"
    with pytest.raises(FactorizationError, match=message):
        NMF(3, distributed=True).fit(a)
    heard = Path(folder, "heard")
    if rank == 1:
        while not heard.exists():
            time.sleep(0.02)
        os._exit(0)
    heard.touch()
    with pytest.raises(FactorizationError, match="lost the other processes"):
        NMF(3, distributed=True).fit(data())
    dist.destroy_process_group()


@needs_fork
def test_bad_rows_on_one_rank_and_a_dead_rank_end_the_others(tmp_path):
    forked(fit_with_trouble, 2, str(tmp_path), ranks=2)

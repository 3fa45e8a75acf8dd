"""The benchmark of part discovery: its rules by hand, and that ours leads on a small sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("pytorch_grad_cam")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import part_discovery

        yield part_discovery


def test_rules_by_hand(benchmark: ModuleType) -> None:
    maps = np.array([[[[0.1, 0.4, 0.8]], [[0.3, 0.3, 0.0]]]])
    near = benchmark.near_peak(maps, 0.45)
    assert near.tolist() == [[[[False, True, True]], [[True, True, False]]]]
    present = benchmark.near_peak(maps, 0.45, 0.5)
    assert not present[0, 1].any()
    assert benchmark.strongest(maps).tolist() == [[[[False, True, True]], [[True, False, False]]]]


def test_ours_leads_on_a_small_sample(benchmark: ModuleType) -> None:
    data = benchmark.collect(60, "layer4")
    sets = [data.some(np.flatnonzero(data.labels == label)) for label in np.unique(data.labels)[:4]]
    ours = benchmark.score(sets, "ours", 6)
    for peer in benchmark.PEERS:
        theirs = benchmark.score(sets, peer, 6)
        assert ours["iou"] > theirs["iou"] + 0.03, peer
        assert ours["corloc"] > theirs["corloc"], peer


def test_peers_do_not_change_the_data(benchmark: ModuleType) -> None:
    data = benchmark.collect(4, "layer4")
    before = data.maps.copy(), data.parts.copy(), data.pixels.copy()
    for name in ("ours", *benchmark.PEERS):
        benchmark.score([data], name, 4)
    for was, now in zip(before, (data.maps, data.parts, data.pixels), strict=True):
        np.testing.assert_array_equal(was, now)

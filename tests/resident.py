"""Print how many bytes resident memory grows by in fits: ``python -m tests.resident`` (Linux)."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import torch

from dff.nmf import NMF, RowBlocks

ROWS, COLUMNS, K = 16_000, 1280, 5
MOST_PASSES = 3  # all take the same memory


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(data: object, precision: str) -> int:
    """Return the most resident memory in a fit beyond that before it."""
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    NMF(K, precision=precision, max_iter=MOST_PASSES).fit_transform(data)
    done.set()
    watcher.join()
    return peak[0]


def main() -> None:
    torch.set_num_threads(2)
    half = torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)).half()
    for precision in ("float32", "bfloat16"):  # what the libraries keep from their first use on
        NMF(2, precision=precision).fit(half[:5000].float())
    blocks = [half[first : first + 8000] for first in range(0, ROWS, 8000)]
    report = {
        f"{name}, {precision}": growth(data, precision)
        for precision in ("float32", "bfloat16")
        for name, data in (("half", half), ("blocks", RowBlocks(blocks)), ("full", half.float()))
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

"""How many threads a factorization runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["SHARE", "SMALL", "in_shares", "suited_threads"]

SMALL = 1 << 19  # entries of A
SHARE = 1 << 17  # entries of the codes that are worth a thread of their own


@contextmanager
def suited_threads(entries: int) -> Iterator[None]:
    """Run on one thread where A has few `entries`, and give the setting back.

    Handing work of microseconds to other threads costs more than it saves, and many times more
    where threads of another pool (of NumPy's BLAS, of a data loader) keep the cores busy.
    """
    before = torch.get_num_threads()
    if entries >= SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_shares(work: Callable[[slice], None], codes: Tensor) -> None:
    """Call `work` with slices that together are all columns of `codes` (k, n), side by side.

    The columns are independent problems whose many small steps torch runs on one thread each. On a
    processor that has several and where there is enough to do, each takes a share.
    """
    columns, count = codes.shape[1], codes.numel() // SHARE
    if count < 2 or codes.device.type != "cpu" or torch.get_num_threads() == 1:
        work(slice(0, columns))
        return
    count = min(count, torch.get_num_threads())

    def share(index: int) -> None:
        with torch.inference_mode():
            work(slice(columns * index // count, columns * (index + 1) // count))

    with ThreadPoolExecutor(count - 1) as others:
        waiting = [others.submit(share, index) for index in range(1, count)]
        share(0)
        for done in waiting:
            done.result()

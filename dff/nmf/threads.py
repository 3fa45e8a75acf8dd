"""How many threads a factorization runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["SMALL", "suited_threads"]

SMALL = 1 << 19  # entries


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

"""How many threads a factorization runs on, and work side by side on several of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["SMALL", "side_by_side", "suited_threads", "workers"]

Part = TypeVar("Part")
Result = TypeVar("Result")

SMALL = 1 << 19  # entries of A
ENTRIES = 1 << 24  # entries of A that are worth a worker of their own
MOST = 8  # workers: more would wait for each other to call torch


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


def workers(entries: int) -> int:
    """Return how many workers suit an A of so many entries, on this processor."""
    return max(1, min(torch.get_num_threads(), MOST, entries // ENTRIES))


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return `work` of each part, each done by a thread of its own with its share of the cores.

    With large parts that does better than each step spread over all threads: many steps are too
    small for that, and no thread waits for the others between two steps.
    """
    if len(parts) == 1:
        return [work(parts[0])]
    before = torch.get_num_threads()

    def alone(part: Part) -> Result:
        torch.set_num_threads(max(1, before // len(parts)))  # holds for the thread that calls it
        with torch.inference_mode():
            return work(part)

    try:
        with ThreadPoolExecutor(len(parts) - 1) as others:
            waiting = [others.submit(alone, part) for part in parts[1:]]
            return [alone(parts[0]), *(done.result() for done in waiting)]
    finally:
        torch.set_num_threads(before)

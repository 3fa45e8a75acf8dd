"""Photos in batches: those of one input size together, fewer at a time where memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from dff.errors import OutOfMemoryError

__all__ = ["in_batches"]

MAX_BATCH = 32

Result = TypeVar("Result")


def in_batches(sizes: Sequence[Hashable], run: Callable[[list[list[int]]], Result]) -> Result:
    """Call `run` with the indices of inputs in batches; return what it returns.

    Args:
        sizes: (n,) of the inputs; only what has the same size stands together.
        run: called again, with batches of half the size, where memory runs out.

    Raises:
        OutOfMemoryError: one input alone is too much.
    """
    most = MAX_BATCH
    while True:
        batches = _batches(sizes, most)
        try:
            return run(batches)
        except OutOfMemoryError:
            largest = max(map(len, batches))
            if largest < 2:
                raise
        most = largest // 2
        warnings.warn(
            f"memory ran out on {largest} photos at once: going on with {most}",
            RuntimeWarning,
            stacklevel=2,
        )


def _batches(sizes: Sequence[Hashable], most: int) -> list[list[int]]:
    """Group indices by size, at most `most` a group."""
    by_size: dict[Hashable, list[int]] = {}
    for i, size in enumerate(sizes):
        by_size.setdefault(size, []).append(i)
    return [
        indices[start : start + most]
        for indices in by_size.values()
        for start in range(0, len(indices), most)
    ]

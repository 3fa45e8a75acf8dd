"""COCO's run-length encoding of masks, both ways, compressed and not.

Format: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and its API: counts of
pixels outside and inside in turns, column by column; compressed, each count from the fourth on is
a difference to the one two before, and is written in groups of five bits as printable characters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dff.colocalization.masks import Runs
from dff.errors import UsageError

__all__ = ["compress", "counts_of", "decompress", "runs_from_rle", "to_rle"]

GROUPS = 7  # of five bits: enough for 2^31 pixels


def to_rle(runs: Runs) -> dict[str, Any]:
    """Return a mask as COCO's compressed RLE: ``{"size": [height, width], "counts": "..."}``."""
    return {"size": [runs.height, runs.width], "counts": compress(counts_of(runs))}


def counts_of(runs: Runs) -> np.ndarray:
    """Return the uncompressed counts of a mask: outside, inside, outside, ..."""
    total = runs.height * runs.width
    if not len(runs.starts):
        return np.array([total], dtype=np.int64)
    apart = runs.starts[1:] != runs.ends[:-1]  # runs that go on in the next column are one
    starts = runs.starts[np.concatenate([[True], apart])]
    ends = runs.ends[np.concatenate([apart, [True]])]
    edges = np.empty(2 * len(starts) + 1, dtype=np.int64)
    edges[0:-1:2], edges[1:-1:2], edges[-1] = starts, ends, total
    counts = np.diff(edges, prepend=0)
    return counts[:-1] if counts[-1] == 0 else counts


def compress(counts: np.ndarray) -> str:
    """Return counts as COCO's string."""
    values = np.array(counts, dtype=np.int64)
    values[3:] -= np.asarray(counts, dtype=np.int64)[1:-2]
    groups = np.zeros((len(values), GROUPS), dtype=np.uint8)
    used = np.zeros((len(values), GROUPS), dtype=bool)
    active = np.ones(len(values), dtype=bool)
    for group in range(GROUPS):
        bits = values & 31
        values >>= 5
        more = np.where(bits & 16, values != -1, values != 0)
        used[:, group] = active
        groups[:, group] = 48 + bits + 32 * more
        active = active & more
        if not active.any():
            break
    return groups[used].tobytes().decode("ascii")


def decompress(text: str | bytes) -> np.ndarray:
    """Return the counts of COCO's string."""
    data = np.frombuffer(text if isinstance(text, bytes) else text.encode("ascii"), np.uint8)
    bits = data.astype(np.int64) - 48
    if not len(bits) or bits.min() < 0 or bits.max() > 63 or bits[-1] & 32:
        raise UsageError("the mask is not COCO's compressed run-length encoding")
    last = (bits & 32) == 0
    number = np.concatenate([[0], np.cumsum(last)[:-1]])
    firsts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(bits)) - firsts[number]
    values = np.zeros(number[-1] + 1, dtype=np.int64)
    np.add.at(values, number, (bits & 31) << (5 * place))
    negative = (bits[last] & 16) != 0
    values[negative] -= np.int64(1) << (5 * (place[last][negative] + 1))
    values[1::2] = _running(values[1::2], 1)
    values[2::2] = np.cumsum(values[2::2])
    return values


def _running(values: np.ndarray, first: int) -> np.ndarray:
    """Add up the differences: the second count is whole, and so is the first of the others."""
    return np.cumsum(values) if first else values


def runs_from_rle(rle: dict[str, Any]) -> Runs:
    """Return the mask of COCO's RLE, compressed or not.

    Raises:
        UsageError: it is neither.
    """
    try:
        height, width = (int(v) for v in rle["size"])
        given = rle["counts"]
        counts = decompress(given) if isinstance(given, (str, bytes)) else np.asarray(given)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"a mask is not COCO's run-length encoding: {error}") from None
    edges = np.cumsum(counts.astype(np.int64))
    if len(counts) == 0 or edges[-1] != height * width or counts.min() < 0:
        raise UsageError(f"a mask's counts do not add up to {height} x {width} pixels")
    starts, ends = edges[:-1:2], edges[1::2]
    filled = ends > starts
    return _by_column(starts[filled], ends[filled], height, width)


def _by_column(starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> Runs:
    """Cut runs at the ends of columns."""
    first, last = starts // height, (ends - 1) // height
    pieces = last - first + 1
    which = np.repeat(np.arange(len(starts)), pieces)
    column = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return Runs(
        np.maximum(starts[which], column * height),
        np.minimum(ends[which], (column + 1) * height),
        height,
        width,
    )

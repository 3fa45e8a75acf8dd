"""The memory rule: what is fitted, and which images are run for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dff.errors import UsageError

__all__ = ["CHUNK", "Plan", "parse_memory", "plan"]

CHUNK = 128
"""Images in one shard of maps at most: what is lost at most when a process is killed."""
FEWEST_IN_CHUNK = 32  # a batch: fewer would cut batches short
CHUNKS = 64  # where images allow: processes take every N-th chunk, and few chunks share unevenly

FEWEST = 8  # cells of an image that are sampled at least: reading it costs more than they do
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True, eq=False)
class Plan:
    """Which rows are fitted.

    Attributes:
        images: how many there are.
        cells: of each image's grid.
        exact: all rows of all images are fitted, and one forward pass is enough.
        per_image: cells drawn from each image that is run for the fit.
        chosen: (m,) the images that are run for the fit, ascending.
        seed: of the draw.
        chunk: images in one shard of maps.
    """

    images: int
    cells: int
    exact: bool
    per_image: int
    chosen: np.ndarray
    seed: int
    chunk: int

    @property
    def fit_chunks(self) -> list[Sequence[int]]:
        """The images run for the fit, in chunks."""
        starts = range(0, len(self.chosen), self.chunk)
        return [self.chosen[i : i + self.chunk].tolist() for i in starts]

    @property
    def chunks(self) -> list[Sequence[int]]:
        """All images, in chunks: one shard of maps each."""
        starts = range(0, self.images, self.chunk)
        return [range(i, min(i + self.chunk, self.images)) for i in starts]

    def cells_of(self, image: int) -> np.ndarray:
        """Return the cells that are drawn from an image, ascending; they depend on nothing else."""
        if self.exact:
            return np.arange(self.cells)
        generator = np.random.default_rng([self.seed, 1, image])
        return np.sort(generator.choice(self.cells, self.per_image, replace=False))


def plan(images: int, cells: int, channels: int, *, memory: int, seed: int) -> Plan:
    """Decide between all rows and a uniform sample, spread over as many images as possible.

    Args:
        images: how many there are.
        cells: of each image's grid.
        channels: of the layer.
        memory: bytes that the rows of the fit may take, as float32.
        seed: of the sample.

    Raises:
        UsageError: not even a few rows fit.
    """
    room = memory // (4 * channels)
    everything, chunk = np.arange(images), _chunk(images)
    if images * cells <= room:
        return Plan(images, cells, True, cells, everything, seed, chunk)
    if room < 64:
        raise UsageError(
            f"--memory of {memory} bytes holds {room} rows of {channels} channels; give more"
        )
    per_image = max(room // images, min(FEWEST, cells))
    count = min(images, room // per_image)
    generator = np.random.default_rng([seed, 0])
    chosen = np.sort(generator.permutation(images)[:count])
    return Plan(images, cells, False, per_image, chosen, seed, chunk)


def _chunk(images: int) -> int:
    """Return the images of a chunk: of whole batches, so many that ranks have equal shares.

    It depends on nothing but the dataset, so that a run goes on with any number of processes.
    """
    batches = -(-images // (CHUNKS * FEWEST_IN_CHUNK))
    return min(CHUNK, FEWEST_IN_CHUNK * max(1, batches))


def parse_memory(text: str | int) -> int:
    """Return bytes for "4G", "500M", "1.5 GiB" or a number of bytes.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    words = str(text).strip().lower().removesuffix("b").removesuffix("i").strip()
    unit = words[-1:] if words[-1:].isalpha() else ""
    try:
        value = float(words[: len(words) - len(unit)]) * UNITS[unit]
    except (ValueError, KeyError):
        value = 0
    if not 0 < value < 2**60:
        raise UsageError(f"memory is a size such as 4G or 500M, not {text!r}")
    return int(value)

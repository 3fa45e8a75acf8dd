"""Photos with known masks, and what a run of the library sees of them: for real_masks.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dff.colocalization import open_dataset
from dff.colocalization.annotations import Known, read_annotations
from dff.colocalization.sources.reader import Reader
from dff.colocalization.stages.network import Network
from dff.explain import Explainer
from dff.images import read_image
from dff.maps import Grid, fitted, within
from dff.maps.masks import GUIDE_SIDE
from dff.models import load_model

BATCH = 32
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo of one thing: where it lies, and what is annotated in it."""

    path: Path
    known: Known

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.known.height, self.known.width

    @cached_property
    def truth(self) -> np.ndarray:
        """The thing's mask, bool (height, width)."""
        mask = self.known.mask(next(iter(self.known.masks)))
        assert mask is not None
        return mask

    @cached_property
    def inside_before(self) -> np.ndarray:
        """How many of its pixels lie before each position x · height + y, (height · width + 1,)."""
        return np.concatenate([[0], self.truth.T.ravel().cumsum()])

    @property
    def boxes(self) -> list[Box]:
        """The thing's boxes (x0, y0, x1, y1), half-open, in pixels."""
        return next(iter(self.known.boxes.values()))

    @cached_property
    def guide(self) -> np.ndarray:
        """The photo, uint8 (h, w, 3), as small as a run takes it to refine masks with."""
        pixels = read_image(self.path, least=GUIDE_SIDE).pixels
        return fitted(pixels, within(pixels.shape[:2], GUIDE_SIDE, least=2))


@dataclass(frozen=True, eq=False)
class Activations:
    """A layer's output over photos: `values` (n, rows, cols, channels) float32, and their grid."""

    values: np.ndarray
    grid: Grid
    layer: str


def folders_of(data: Path) -> list[Path]:
    """Return the folder of photos, or those in it, by name.

    Raises:
        SystemExit: there is none.
    """
    if (data / "annotations.json").is_file():
        return [data]
    found = sorted(file.parent for file in data.glob("*/annotations.json"))
    return found or sys.exit(f"expected annotations.json in {data}, or in folders of it")


def read_photos(data: Path, count: int | None = None, start: int = 0) -> list[Photo]:
    """Return `count` photos, evenly spaced from number `start` on; None is all of them.

    `data` holds images/ and annotations.json (COCO).
    """
    photos = [
        Photo(data / "images" / known.file_name, known)
        for known in read_annotations(data / "annotations.json")
        if known.masks
    ][start:]
    count = min(count or len(photos), len(photos))
    return [photos[i * len(photos) // count] for i in range(count)]


def activations(explainer: Explainer, photos: Sequence[Photo]) -> Activations:
    """Run the model over the photos as `dff.colocalize` does, and keep the layer's output."""
    network = Network(explainer)
    dataset = open_dataset([os.fspath(photo.path) for photo in photos])
    workers = os.cpu_count() or 1
    with Reader(dataset, network.preprocessing, workers=workers) as reader:
        squares = [sample.pixels for sample in reader.stream(range(len(photos)))]
    rows = [
        network(np.stack(squares[i : i + BATCH]), predict=False).rows.float().cpu().numpy()
        for i in range(0, len(squares), BATCH)
    ]
    values = np.concatenate(rows).reshape(len(photos), *network.cells, network.channels)
    return Activations(values, network.grid, network.layer)


@dataclass(frozen=True)
class Model:
    """A model to measure on.

    Attributes:
        size: of its input, in pixels.
        name: for `load_model`, {} being the folder of shared data.
        options: likewise.
        keys: the layer that gives the keys of its last attention.
    """

    size: int
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    keys: str | None = None

    def load(self, shared: Path, size: int | None = None, **options: Any) -> Explainer:
        """Return it ready, at its own or another input size; `options` are those of Explainer."""
        about = {k: v.format(shared) if isinstance(v, str) else v for k, v in self.options.items()}
        loaded = load_model(self.name.format(shared), size=size or self.size, **about)
        return Explainer(loaded, **options)


_LABELS = "{}/models/imagenet_labels.txt"
_MOBILENET = "{}/models/mobilenet_v2_imagenet.safetensors"
_EFFICIENTNET = "{}/models/tf_efficientnet_lite0_imagenet.safetensors"
_LEVELS = {"mean": 0.5, "std": 0.5}
MODELS = {
    "mobilenet_v2": Model(
        225, "mobilenet_v2", {"weights": _MOBILENET, "labels": _LABELS, **_LEVELS}
    ),
    "efficientnet_lite0": Model(
        224, "timm:tf_efficientnet_lite0", {"weights": _EFFICIENTNET, "labels": _LABELS}
    ),
    "vit_s14": Model(
        224, "hf:{}/models/vit_s14_dinov2_style", keys="encoder.layer.11.attention.k_proj"
    ),
    "demo": Model(128, "demo"),
}
MEASURED = ("mobilenet_v2", "efficientnet_lite0", "vit_s14")


def larger(size: int) -> int:
    """Return twice the input size; an odd one (32 n + 1) stays odd."""
    return 2 * size - size % 2


def paths_of(photos: Sequence[Photo]) -> list[str]:
    """Return the photos' paths."""
    return [os.fspath(photo.path) for photo in photos]


def numbers(text: str) -> list[int]:
    """Parse "4,8" or "2:12" (inclusive)."""
    low, colon, high = text.partition(":")
    return list(range(int(low), int(high) + 1)) if colon else [int(k) for k in text.split(",")]

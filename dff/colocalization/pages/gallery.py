"""The pictures of a run's page: thumbnails of some images, crops, and where concepts sit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dff.colocalization.run.finished import Run
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.stages.exemplars import best_instances, crops, masks_for
from dff.colocalization.stages.job import CUTTING, SHOWING, Progress, silent
from dff.errors import DFFError
from dff.images import read_image
from dff.maps import Grid, fitted, upsample, within
from dff.report import Thumbnail
from dff.report.pictures import heat_uri, jpeg_uri, uri

__all__ = ["best_crops", "places", "sampled", "thumbnails"]

SIDE = 320  # pixels of a thumbnail's longer side
MOST_MAPS = 12  # of one thumbnail: those of its strongest concepts
CROPS, ALL_CROPS = 8, 480  # of one concept, and of all
CROP_SIDE, PLACE_SIDE = 200, 96
SAMPLED = 512  # images that tell where concepts sit


def sampled(
    best: Mapping[int, Sequence[int]], wrong: Sequence[int], readable: Sequence[int], count: int
) -> list[int]:
    """Return which images to show, in order: half are spread evenly over all.

    Args:
        best: for each concept the images that show it best.
        wrong: images on which the model errs.
        readable: all images that could be read.
        count: how many to return at most.
    """
    chosen = dict.fromkeys(_spread(readable, count // 2))
    firsts = [row[i] for i in range(CROPS) for row in best.values() if i < len(row)]
    for image in (*_spread(wrong, count // 4), *firsts, *_spread(readable, count)):
        if len(chosen) >= count:
            break
        chosen.setdefault(image)
    return sorted(chosen)


def thumbnails(
    run: Run,
    dataset: Dataset | None,
    images: Sequence[int],
    *,
    budget: int,
    progress: Progress = silent,
) -> dict[int, Thumbnail]:
    """Return pictures of images and their maps, until they take `budget` bytes.

    Images that are gone are passed over; of a dataset that is (None), all are.
    """
    found: dict[int, Thumbnail] = {}
    for number, image in enumerate(images if dataset is not None else ()):
        progress(SHOWING, number, len(images))
        try:
            pixels = read_image(dataset.source(image), least=SIDE).pixels if dataset else None
        except (DFFError, OSError):
            continue
        if pixels is None:
            continue
        small = fitted(pixels, within(pixels.shape[:2], SIDE))
        maps = np.nan_to_num(run.maps(image).float().numpy()).clip(0, 1)
        strongest = np.argsort(-maps.max((1, 2)), kind="stable")[:MOST_MAPS]
        one = Thumbnail(
            jpeg_uri(small, quality=80), small.shape[1], small.shape[0], strongest.tolist(),
            maps[strongest],
        )  # fmt: skip
        budget -= len(one.picture) + one.maps.size * 4 // 3 + 200
        if budget < 0:
            break
        found[image] = one
    progress(SHOWING, len(images), len(images))
    return found


def best_crops(
    run: Run, dataset: Dataset | None, progress: Progress = silent
) -> tuple[list[list[str]], dict[int, list[int]]]:
    """Return for each concept crops that show it best, and the images that do.

    Where the images are gone, the crops are those that the run has kept.
    """
    bank = run.bank
    count = max(1, min(CROPS, ALL_CROPS // len(bank)))
    best = best_instances(run.folder, range(len(bank)), count)
    masks = masks_for(run.folder, best)
    shown = []
    for k, instances in best.items():
        progress(CUTTING, k, len(best))
        cut = crops(dataset, instances, bank.colors[k], k, masks, count) if dataset else []
        small = [fitted(c, within(c.shape[:2], CROP_SIDE)) for _, c in cut]
        shown.append([jpeg_uri(c, quality=80) for c in small] or _kept_crops(run, k, count))
    progress(CUTTING, len(best), len(best))
    return shown, {k: [one.image for one in row] for k, row in best.items()}


def places(run: Run, grid: Grid | None, readable: Sequence[int]) -> list[str]:
    """Return for each concept a picture of where it sits in images, on average."""
    total = np.zeros(0)
    for image in _spread(readable, SAMPLED):
        maps = np.nan_to_num(run.maps(image).float().numpy()).clip(0, 1)
        total = maps if not total.size else total + maps
    if not total.size:
        return [""] * len(run.bank)
    size = (PLACE_SIDE, PLACE_SIDE)
    large = upsample(total / np.maximum(total.max((1, 2), keepdims=True), 1e-9), size, grid)
    return [heat_uri(one) for one in large]


def _kept_crops(run: Run, concept: int, count: int) -> list[str]:
    names = [f"exemplars/concept-{concept + 1:02d}/{i}.jpg" for i in range(1, count + 1)]
    kept = [name for name in names if name in run.folder.manifest]
    return [uri((run.path / name).read_bytes(), "jpeg")
            for name in kept if run.folder.manifest.sound(name)]  # fmt: skip


def _spread(images: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of the images, evenly spread."""
    if not len(images) or count < 1:
        return []
    at = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    return [int(images[i]) for i in at]

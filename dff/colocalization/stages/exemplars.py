"""The crops that show each concept best, and the sheet of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from safetensors.torch import load_file

from dff.colocalization.run.coco import annotations_of
from dff.colocalization.run.folder import RunFolder, chunk_name
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.video import VideoDataset, write_video
from dff.colocalization.stages.job import CUTTING, SHOWING, Job, Progress, silent
from dff.concepts import ConceptBank, titles
from dff.errors import DFFError
from dff.files import Content
from dff.images import read_image
from dff.labels import spoken_classes
from dff.maps import fitted, upsample, within
from dff.maps.rle import drawn
from dff.rendering import LegendEntry, contact_sheet, overlay
from dff.rendering.files import png

__all__ = [
    "Best",
    "best_instances",
    "crop",
    "crops",
    "entry",
    "exemplars_stage",
    "masks_for",
    "write_exemplars",
]

SHOWN = ("image_id", "strength", "mean", "x0", "y0", "x1", "y1")
SIDE = 256  # pixels of a crop
MARGIN = 0.15  # of the box, on each side
Masks = dict[tuple[int, int], dict[str, Any]]
"""COCO's RLE of instances, by (image, concept), both from 0."""
SPARE = 3  # times as many candidates as crops: some images may be gone


@dataclass(frozen=True)
class Best:
    """An instance to show: the image, its presence at the peak and on average, and its box."""

    image: int
    strength: float
    mean: float
    box: tuple[int, int, int, int]


def best_instances(
    folder: RunFolder,
    concepts: Iterable[int],
    count: int,
    *,
    apart: int = 1,
    by_mean: bool = False,
) -> dict[int, list[Best]]:
    """Return the instances of concepts (from 0), strongest first, each of another image.

    Strength counts up to twice full presence; among equals, larger ones come first. `apart` is
    the least difference of image numbers, for the frames of a video. `by_mean` goes by the mean
    presence alone. The table is read once, and the best so far are all that is kept of it.
    """
    file = pq.ParquetFile(folder.file("instances.parquet"))
    kept = {k: np.empty((0, 1 + len(SHOWN))) for k in concepts}
    room = count * SPARE * max(apart, 1)
    for batch in file.iter_batches(batch_size=1 << 18, columns=["concept", *SHOWN]):
        there = batch.filter(pc.is_valid(batch.column("x0")))
        values = np.column_stack([there.column(name).to_numpy() for name in SHOWN])
        of, merit = there.column("concept").to_numpy(), _merit(values, by_mean)
        for k, best in kept.items():
            least = best[-1, 0] if len(best) == room else -np.inf
            own = np.flatnonzero((of == k + 1) & (merit >= least))
            rows = np.concatenate([best, np.column_stack([merit[own], values[own]])])
            kept[k] = rows[np.lexsort((rows[:, 1], -rows[:, 0]))[:room]]
    return {k: _apart(rows[:, 1:], apart)[: count * SPARE] for k, rows in kept.items()}


def _merit(values: np.ndarray, by_mean: bool) -> np.ndarray:
    """Return how well instances, rows of `SHOWN`, show their concept."""
    strength, mean = values[:, 1], values[:, 2]
    if by_mean:
        return mean
    return np.asarray(np.minimum(strength, 2) + 0.5 * np.sqrt(np.clip(mean, 0, 1)))


def _apart(rows: np.ndarray, apart: int) -> list[Best]:
    """Return instances, rows of `SHOWN`, whose images are at least `apart` from earlier ones."""
    chosen: list[Best] = []
    for image, strength, mean, *box in rows.tolist():
        if all(abs(image - instance.image) >= apart for instance in chosen):
            x0, y0, x1, y1 = map(int, box)
            chosen.append(Best(int(image), strength, mean, (x0, y0, x1, y1)))
    return chosen


def crop(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the square around a box, with a margin, as far as the photo goes."""
    (x0, y0, x1, y1), (height, width) = box, pixels.shape[:2]
    side = min(max(x1 - x0, y1 - y0, 24) * (1 + 2 * MARGIN), max(height, width))
    spans = []
    for low, high, length in ((y0, y1, height), (x0, x1, width)):
        start = round(min(max((low + high - side) / 2, 0), max(length - side, 0)))
        spans.append(slice(start, min(length, start + round(side))))
    return pixels[spans[0], spans[1]]


def outlined(pixels: np.ndarray, mask: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """Return a photo with a mask's outline in a colour, and the rest of it paler."""
    thickness = max(2, round(max(pixels.shape[:2]) / 128))
    pale = cv2.addWeighted(pixels, 0.55, np.full_like(pixels, 255), 0.45, 0)
    result = np.where(mask[..., None], pixels, pale)
    contours = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]
    edge = tuple(int(v) for v in color)
    cv2.drawContours(result, contours, -1, (255, 255, 255), thickness + 2)
    cv2.drawContours(result, contours, -1, edge, thickness)
    return np.asarray(result)


def exemplars_stage(job: Job) -> None:
    """Crops and the contact sheet."""
    bank = job.bank()
    write_exemplars(job.folder, job.dataset, bank, progress=job.progress)
    if isinstance(job.dataset, VideoDataset):
        _overlay(job, job.dataset, bank)


def _overlay(job: Job, video: VideoDataset, bank: ConceptBank) -> None:
    """Write overlay.mp4: each frame with its concepts, whose colours are the bank's throughout."""

    def frames() -> Iterator[np.ndarray]:
        for index, ids in enumerate(job.chunks):
            file = job.folder.file(chunk_name("maps", index))
            maps = load_file(file)["maps"].float().numpy()
            for position, image in enumerate(ids):
                pixels = read_image(video.source(image)).pixels
                shown = upsample(np.clip(maps[position], 0, 1), pixels.shape[:2], job.network.grid)
                yield overlay(pixels, shown, colors=bank.colors)
                job.progress(SHOWING, image + 1, len(video))

    with job.folder.manifest.writing("overlay.mp4") as path:
        write_video(path, frames(), video.rate)


def write_exemplars(
    folder: RunFolder,
    dataset: Dataset,
    bank: ConceptBank,
    *,
    count: int = 8,
    progress: Progress = silent,
) -> None:
    """Write exemplars/concept-NN/M.jpg and concepts.png.

    Images that have gone meanwhile are passed over.
    """
    apart = max(1, len(dataset) // 24) if dataset.kind == "video" else 1
    progress(CUTTING, 0, len(bank))
    best = best_instances(folder, range(len(bank)), count, apart=apart)
    masks = masks_for(folder, best)
    rows = []
    files: dict[str, Content] = {}
    facts = pq.read_table(folder.file("concepts.parquet")).to_pylist()
    for k, instances in best.items():
        pictures = crops(dataset, instances, bank.colors[k], k, masks, count)
        for number, (plain, _) in enumerate(pictures, 1):
            files[f"exemplars/concept-{k + 1:02d}/{number}.jpg"] = _jpeg(plain)
        rows.append((entry(bank, k, facts[k]), [marked for _, marked in pictures]))
        progress(CUTTING, k + 1, len(bank))
    files["concepts.png"] = png(contact_sheet(rows, tile=144))
    folder.write(files)


def crops(
    dataset: Dataset,
    best: Sequence[Best],
    color: Sequence[int],
    concept: int,
    masks: Masks,
    count: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return up to `count` pairs (plain crop, crop with the mask's outline)."""
    result: list[tuple[np.ndarray, np.ndarray]] = []
    for instance in best:
        if len(result) == count:
            break
        try:
            pixels = read_image(dataset.source(instance.image)).pixels
        except (DFFError, OSError):
            continue
        plain = _shown(crop(pixels, instance.box))
        marked = plain
        rle = masks.get((instance.image, concept))
        if rle is not None and tuple(rle["size"]) == pixels.shape[:2]:
            part = crop(drawn(rle).astype(np.uint8), instance.box)
            mask = fitted(part, plain.shape[:2], way="nearest") > 0
            marked = outlined(plain, mask, color)
        result.append((plain, marked))
    return result


def _shown(pixels: np.ndarray) -> np.ndarray:
    """Return a picture whose longer side is SIDE."""
    way = "area" if max(pixels.shape[:2]) > SIDE else "cubic"
    return np.ascontiguousarray(fitted(pixels, within(pixels.shape[:2], SIDE), way=way))


def entry(bank: ConceptBank, k: int, facts: dict[str, Any]) -> LegendEntry:
    """Return what stands beside a concept's row: name, share, prevalence, classes."""
    lines = [f"in {facts['prevalence']:.0%} of images", *spoken_classes(facts["top_classes"])]
    return LegendEntry(
        color=bank.colors[k], title=titles(bank.names)[k], share=facts["share"], lines=lines
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def masks_for(folder: RunFolder, best: Mapping[int, Sequence[Best]]) -> Masks:
    """Return the RLE masks of concepts' instances, from one reading of coco.json."""
    chosen = {(instance.image, k) for k, instances in best.items() for instance in instances}
    masks: Masks = {}
    ids = {image for image, _ in chosen}
    for annotation in annotations_of(folder.file("coco.json"), ids):
        key = (annotation["image_id"], annotation["category_id"] - 1)
        if key in chosen:
            masks[key] = annotation["segmentation"]
    return masks

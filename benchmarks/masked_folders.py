"""DAVIS and COCO as real_masks.py and `dff evaluate` take them: images/ and annotations.json.

    python benchmarks/masked_folders.py davis DAVIS OUT --frames 12              # one a sequence
    python benchmarks/masked_folders.py davis DAVIS OUT --frames 6 --together    # one of all
    python benchmarks/masked_folders.py coco instances_val2017.json val2017 OUT  # one a category

DAVIS (Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", 2016) is the folder that holds JPEGImages/480p and Annotations/480p; frames are
evenly spaced, and the whole foreground is one thing. Of COCO (Lin et al., "Microsoft COCO: Common
Objects in Context", 2014) each category is a folder: the images that show it, and its instances.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from dff.colocalization.instances import annotation
from dff.maps.runs import Runs, runs_of

Entry = dict[str, Any]  # of COCO's JSON


@dataclass(frozen=True)
class Frame:
    """An image to copy, what to call it, and where the thing is in it."""

    path: Path
    name: str
    mask: Runs


def davis_frames(davis: Path, count: int) -> dict[str, list[Frame]]:
    """Return `count` frames of each sequence, evenly spaced; those that show nothing are left out.

    Raises:
        SystemExit: it is no such folder.
    """
    images, masks = (davis / part / "480p" for part in ("JPEGImages", "Annotations"))
    if not (images.is_dir() and masks.is_dir()):
        sys.exit(f"expected JPEGImages/480p and Annotations/480p in {davis}")
    sequences = sorted(path.name for path in images.iterdir() if path.is_dir())
    return {name: list(_frames(images / name, masks / name, count)) for name in sequences}


def _frames(images: Path, masks: Path, count: int) -> Iterator[Frame]:
    paths = sorted(images.glob("*.jpg"))
    count = min(count, len(paths))
    for path in (paths[i * len(paths) // count] for i in range(count)):
        drawn = cv2.imread(str(masks / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if drawn is None:
            sys.exit(f"{path} has no mask {path.stem}.png in {masks}")
        mask = runs_of(drawn.reshape(*drawn.shape[:2], -1).any(-1))
        if mask.area:
            yield Frame(path, f"{images.name}-{path.name}", mask)


def write_frames(frames: Iterable[Frame], folder: Path) -> int:
    """Write a folder of frames with masks; return how many they are."""
    images, annotations = [], []
    copied = _new(folder)
    for number, frame in enumerate(frames):
        shutil.copyfile(frame.path, copied / frame.name)
        size = {"width": frame.mask.width, "height": frame.mask.height}
        images.append({"id": number, "file_name": frame.name, **size})
        annotations.append(annotation(number, concept=0, count=1, score=1.0, runs=frame.mask))
    _write(folder, images, annotations, {"id": 1, "name": "foreground"})
    return len(images)


def write_categories(annotations: Path, images: Path, out: Path, least: int) -> dict[str, int]:
    """Write a folder for each category that at least `least` images show; return how many do."""
    content = json.loads(annotations.read_text())
    by_category: dict[int, list[Entry]] = defaultdict(list)
    for entry in content["annotations"]:
        by_category[entry["category_id"]].append(entry)
    written = {}
    for category in content["categories"]:
        entries = by_category[category["id"]]
        shown = {entry["image_id"] for entry in entries}
        if len(shown) < least:
            continue
        folder = out / category["name"].replace(" ", "-")
        copied = _new(folder)
        kept = [image for image in content["images"] if image["id"] in shown]
        for image in kept:
            shutil.copyfile(images / image["file_name"], copied / image["file_name"])
        _write(folder, kept, entries, category)
        written[category["name"]] = len(kept)
    return written


def _new(folder: Path) -> Path:
    """Make a folder that is not there yet; return its images/."""
    if folder.exists():
        sys.exit(f"{folder} exists already; name a new folder, or remove it")
    (folder / "images").mkdir(parents=True)
    return folder / "images"


def _write(folder: Path, images: list[Entry], annotations: list[Entry], category: Entry) -> None:
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "annotations.json").write_text(json.dumps(content))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folders that are asked for, and print how many images each has."""
    args = _options(arguments)
    if args.dataset == "coco":
        written = write_categories(args.annotations, args.images, args.out, args.least)
    else:
        sequences = davis_frames(args.davis, args.frames)
        if args.together:
            every = [frame for frames in sequences.values() for frame in frames]
            written = {args.out.name: write_frames(every, args.out)}
        else:
            written = {s: write_frames(frames, args.out / s) for s, frames in sequences.items()}
    for name, count in written.items():
        print(f"{name}: {count} images")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    datasets = parser.add_subparsers(dest="dataset", required=True)
    davis = datasets.add_parser("davis")
    davis.add_argument("davis", type=Path, help="folder of JPEGImages/480p and Annotations/480p")
    davis.add_argument("out", type=Path)
    davis.add_argument("--frames", type=int, default=12, help="of each sequence")
    davis.add_argument("--together", action="store_true", help="one folder for all sequences")
    coco = datasets.add_parser("coco")
    coco.add_argument("annotations", type=Path, help="COCO's JSON of instances")
    coco.add_argument("images", type=Path, help="the folder of its images")
    coco.add_argument("out", type=Path)
    coco.add_argument("--least", type=int, default=8, help="images that show a category")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

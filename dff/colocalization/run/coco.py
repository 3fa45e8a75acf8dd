"""coco.json: boxes and masks of a run in COCO's own format, written and read a line at a time.

The second line holds the categories, so that concepts can be renamed, and each annotation has a
line of its own, so that some of them can be read, without the whole of a large file in memory.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any

from dff.colocalization.run.folder import RunFolder, chunk_name
from dff.colocalization.run.tables import image_facts, printable
from dff.colocalization.sources.dataset import Dataset
from dff.concepts import ConceptBank
from dff.version import __version__

__all__ = ["annotations_of", "renamed_coco", "write_coco"]

NEAR, NEAR_BYTES = 64, 1 << 16  # images, and bytes, that are read over rather than jumped


def categories(bank: ConceptBank) -> str:
    """Return COCO's categories, concepts and their unions, as one line of JSON."""
    return json.dumps(
        [
            {"id": i + 1, "name": name, "supercategory": "concept" if i < len(bank) else "union"}
            for i, name in enumerate(bank.node_names())
        ]
    )


def write_coco(folder: RunFolder, dataset: Dataset, chunks: int, bank: ConceptBank) -> None:
    """Write coco.json: the images that could be read, and a box and a mask for each instance.

    Its second line holds the categories, so that names can be changed without a parser.
    """
    info = {
        "description": f"concepts of {bank.model}, layer {bank.layer}",
        "version": __version__,
    }

    def write(file: IO[bytes]) -> None:
        def put(text: str) -> None:
            file.write(text.encode())

        put(f'{{"info": {json.dumps(info)},\n"categories": {categories(bank)},\n"images": [')
        _separated(put, _image_lines(folder, dataset, chunks))
        put('],\n"annotations": [')
        _separated(put, _annotation_lines(folder, chunks))
        put("]}\n")

    folder.write({"coco.json": write})


def renamed_coco(path: Path, bank: ConceptBank, file: IO[bytes]) -> None:
    """Copy coco.json to `file` with the concepts' names as they are now, on its second line."""
    with path.open("rb") as old:
        file.write(old.readline())
        old.readline()
        file.write(f'"categories": {categories(bank)},\n'.encode())
        shutil.copyfileobj(old, file)


def _separated(put: Callable[[str], None], lines: Iterator[str]) -> None:
    separator = "\n"
    for line in lines:
        put(separator + line)
        separator = ",\n"


def _image_lines(folder: RunFolder, dataset: Dataset, chunks: int) -> Iterator[str]:
    for facts in image_facts(folder, chunks):
        for i, width, height, error in zip(
            facts["ids"], facts["widths"], facts["heights"], facts["errors"], strict=True
        ):
            if error is None:
                name = printable(dataset.paths[i])
                yield json.dumps({"id": i, "file_name": name, "width": width, "height": height})


def _annotation_lines(folder: RunFolder, chunks: int) -> Iterator[str]:
    for index in range(chunks):
        with folder.file(chunk_name("coco", index)).open() as lines:
            for line in lines:
                yield line.rstrip("\n")


def annotations_of(path: Path, images: Collection[int]) -> Iterator[dict[str, Any]]:
    """Yield the annotations of some images, ascending, from a run's coco.json.

    Its lines come in the order of images, so that those of a few are found by bisection, however
    large the file is.
    """
    with path.open("rb") as file:
        line = file.readline()
        for image in sorted(images):
            if _image_of(line) < image - NEAR:
                _seek(file, image)
                line = file.readline()
            while _image_of(line) < image:
                line = file.readline()
            while _image_of(line) == image:
                yield json.loads(line.rstrip().removesuffix(b"]}").rstrip(b","))
                line = file.readline()


def _image_of(line: bytes) -> float:
    """Return the image of a line: -inf before all annotations, inf at the end of the file."""
    if b'"category_id"' in line[:80]:  # after "id" and "image_id"
        return int(line[line.index(b'"image_id": ') + 12 :].split(b",", 1)[0])
    return -math.inf if line else math.inf


def _seek(file: IO[bytes], image: int) -> None:
    """Go on from the start of a line to that of one before the image's, or its first, and near."""
    low, high = file.tell() - 1, os.fstat(file.fileno()).st_size
    while high - low > NEAR_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        low, high = (middle, high) if _image_of(file.readline()) < image else (low, middle)
    file.seek(low)
    file.readline()

"""A Python dataset, such as torchvision's or Hugging Face's, as a dataset."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dff.colocalization.sources.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from dff.colocalization.sources.dataset import Dataset
from dff.errors import ImageError
from dff.images import Source

__all__ = ["PythonDataset"]


class PythonDataset(Dataset):
    """A dataset in the manner of torchvision: ``dataset[i]`` is an image, or (image, target).

    In the manner of Hugging Face it is a row with an image under one of :data:`IMAGE_COLUMNS`.
    """

    def __init__(self, items: Any) -> None:
        names, targets = _classes(items)
        labels: list[str | None] = [None] * len(items)
        if targets is not None and len(targets) == len(items):
            labels = [names[int(t)] if int(t) < len(names) else str(int(t)) for t in targets]
        files = getattr(items, "samples", None) or getattr(items, "imgs", None)
        paths = [f"item {i}" for i in range(len(items))]
        if files is not None and len(files) == len(items):
            paths = [
                os.fspath(sample[0] if isinstance(sample, tuple) else sample) for sample in files
            ]
        super().__init__("python", type(items).__name__, paths, labels)
        self.items = items

    def file(self, index: int) -> str | None:
        path = self.paths[index]
        return path if os.path.isfile(path) else None

    def source(self, index: int) -> Source:
        item = self.items[index]
        image = item[0] if isinstance(item, (tuple, list)) else item
        if isinstance(item, dict):
            image = _image_of(item)
        if hasattr(image, "detach"):  # a tensor (3, height, width)
            image = image.detach().cpu().numpy()
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] in (1, 3):
            image = np.ascontiguousarray(image.transpose(1, 2, 0))
        return image


def _classes(items: Any) -> tuple[list[str], Any]:
    """Return the names of the classes, and the class of each item; None where unknown."""
    features = getattr(items, "features", None)
    if not isinstance(features, dict):
        return list(getattr(items, "classes", None) or []), getattr(items, "targets", None)
    label = next((name for name in LABEL_COLUMNS if hasattr(features.get(name), "names")), None)
    return ([], None) if label is None else (list(features[label].names), items[label])


def _image_of(row: dict[str, Any]) -> Any:
    name = next((name for name in IMAGE_COLUMNS if name in row), None)
    if name is None:
        raise ImageError(
            f"a row holds no image under {', '.join(IMAGE_COLUMNS)}; it has {', '.join(row)}"
        )
    cell = row[name]
    return cell.get("bytes") if isinstance(cell, dict) else cell

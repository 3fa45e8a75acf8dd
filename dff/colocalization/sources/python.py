"""A Python dataset, such as torchvision's, as a dataset."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dff.colocalization.sources.dataset import Dataset
from dff.images import Source

__all__ = ["PythonDataset"]


class PythonDataset(Dataset):
    """A dataset in the manner of torchvision: ``dataset[i]`` is an image, or (image, target)."""

    def __init__(self, items: Any) -> None:
        names = list(getattr(items, "classes", None) or [])
        targets = getattr(items, "targets", None)
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
        if hasattr(image, "detach"):  # a tensor (3, height, width)
            image = image.detach().cpu().numpy()
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] in (1, 3):
            image = np.ascontiguousarray(image.transpose(1, 2, 0))
        return image

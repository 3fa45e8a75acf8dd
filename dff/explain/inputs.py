"""What a call may be given, as a list of images, or as pictures and tensors."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from dff.errors import UsageError
from dff.images import Picture, Preprocessing, Source

__all__ = ["Images", "as_list", "from_tensor"]

Images: TypeAlias = "Source | Tensor | Iterable[Source]"


def as_list(images: Any) -> list[Any]:
    """Return the images of one call as a list: a single one is a list of one.

    Args:
        images: a path, URL, bytes, opened file, Pillow image, picture, array (height, width, 3) or
            (n, height, width, 3), or an iterable of such.
    """
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    single = isinstance(images, (str, bytes, io.IOBase, Picture, Image.Image))
    single = single or hasattr(images, "__fspath__")
    return [images] if single else list(images)


def from_tensor(x: Tensor, prep: Preprocessing) -> tuple[list[Picture], list[Tensor]]:
    """Return a normalised batch as pictures to look at, and its items (3, height, width).

    Raises:
        UsageError: another shape than (3, height, width) or (n, 3, height, width).
    """
    batch = x[None] if x.ndim == 3 else x
    if batch.ndim != 4 or batch.shape[1] != 3 or not len(batch):
        raise UsageError(
            f"expected a tensor (3, height, width) or (n, 3, height, width), got {tuple(x.shape)}"
        )
    items = list(batch.detach())
    return [Picture(prep.to_pixels(item), f"image{i}") for i, item in enumerate(items)], items

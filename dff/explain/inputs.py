"""What a call may be given, as a list of images, or as pictures and tensors."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from dff.errors import UsageError
from dff.images import Picture, Preprocessing, Source
from dff.images.bands import pictured

__all__ = ["Images", "as_list", "fitting", "from_tensor"]

Images: TypeAlias = "Source | Tensor | Iterable[Source]"


def as_list(images: Any) -> list[Any]:
    """Return the images of one call as a list: a single one is a list of one.

    Args:
        images: a path, URL, bytes, opened file, Pillow image, picture, array (height, width,
            channels) or (n, height, width, channels), or an iterable of such.
    """
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    single = isinstance(images, (str, bytes, io.IOBase, Picture, Image.Image))
    single = single or hasattr(images, "__fspath__")
    return [images] if single else list(images)


def from_tensor(x: Tensor, prep: Preprocessing) -> tuple[list[Picture], list[Tensor]]:
    """Return a normalised batch as pictures to look at, and its items (channels, height, width).

    Raises:
        UsageError: another shape than (channels, height, width) or (n, channels, height, width),
            or another number of channels than the model's.
    """
    batch, count = x[None] if x.ndim == 3 else x, prep.channels
    if batch.ndim != 4 or batch.shape[1] != count or not len(batch):
        raise UsageError(
            f"expected a tensor ({count}, height, width) or (n, {count}, height, width), got "
            f"{tuple(x.shape)}"
        )
    items = list(batch.detach())
    pictures = [pictured(prep.to_pixels(item)) for item in items]
    return [replace(picture, name=f"image{i}") for i, picture in enumerate(pictures)], items


def fitting(given: Preprocessing | None, own: Preprocessing) -> Preprocessing:
    """Return the preprocessing given, else the model's own.

    One number for all channels, or ImageNet's, stand for as many channels as the model takes.
    """
    if given is None:
        return own
    return given.for_channels(own.channels) if given.is_general else given

"""What a call may be given, as pictures to look at and tensors to run: photos, or clips.

One input of the model is a photo, or as many frames of a clip as the model takes: its *shot* is a
row of pictures, one or several. Inputs of one size run together, fewer at a time where memory runs
out.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dff.activations import Arguments
from dff.errors import OutOfMemoryError, UsageError
from dff.images import Picture, Preprocessing, Source, is_video, read_clip, read_image, spread
from dff.images.bands import pictured

__all__ = [
    "Images",
    "Shot",
    "fitting",
    "from_tensor",
    "in_batches",
    "read_shots",
    "to_tensors",
    "whole_inputs",
]

Images: TypeAlias = "Source | Tensor | Iterable[Source]"
Shot = tuple[Picture, ...]

BEYOND = 10
"""By how many times the range from black to white a normalised input may exceed it."""


def read_shots(images: Any, prep: Preprocessing) -> list[Shot]:
    """Read the photos of a call, or for a model of clips its clips.

    Args:
        images: photos as :func:`as_list` takes them; or of clips one, as
            :func:`dff.images.read_clip` takes it, or the paths of several videos.
        prep: says whether the model takes photos or clips.

    Raises:
        ImageError: an image or a video that cannot be read.
        UsageError: no image at all, or a video for a model of photos.
    """
    if prep.frames is not None:
        clip = list(images) if isinstance(images, (Iterator, tuple)) else images
        several = isinstance(clip, list) and clip and all(map(is_video, clip))
        return [tuple(read_clip(one, prep.frames)) for one in (clip if several else [clip])]
    sources = as_list(images)
    if not sources:
        raise UsageError("no image to explain: the list is empty")
    for source in sources:
        if is_video(source):
            raise UsageError(
                f"{str(source)!r} is a video, and the model takes photos: give frames of it, run "
                "`dff colocalize` over it, or take a model of clips, such as r3d_18"
            )
    return [(read_image(source),) for source in sources]


def to_tensors(shots: Sequence[Shot], prep: Preprocessing) -> list[Tensor]:
    """Return each shot as an input: (channels, h, w), or of a clip (channels, frames, h, w)."""
    if prep.frames is None:
        return [prep.to_tensor(shot[0]) for shot in shots]
    return [torch.stack([prep.to_tensor(frame) for frame in shot], 1) for shot in shots]


def whole_inputs(images: Any) -> Arguments | None:
    """Return what a call is given as a model's inputs, if it is such and no photos.

    That is a mapping, :class:`dff.Arguments`, or a tuple with a tensor in it.
    """
    whole = isinstance(images, (Mapping, Arguments))
    if whole or (isinstance(images, tuple) and any(isinstance(one, Tensor) for one in images)):
        return Arguments.of(images)
    return None


def as_list(images: Any) -> list[Any]:
    """Return the images of one call as a list: a single one is a list of one.

    Args:
        images: a path, URL, bytes, opened file, Pillow image, picture, array (height, width,
            channels) or (n, height, width, channels), or an iterable of such; a folder is the
            images in it (:func:`dff.images.spread`).

    Raises:
        ImageError: a folder without images.
    """
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    single = isinstance(images, (str, bytes, io.IOBase, Picture, Image.Image))
    single = single or hasattr(images, "__fspath__")
    return spread([images] if single else images)


def from_tensor(x: Tensor, prep: Preprocessing) -> tuple[list[Shot], list[Tensor]]:
    """Return a normalised batch as shots to look at, and its items (channels, height, width).

    Those of a model of clips are (channels, frames, height, width).

    Raises:
        UsageError: another shape, another number of channels or frames than the model's, or
            values that are not normalised.
    """
    start = [prep.channels] if prep.frames is None else [prep.channels, prep.frames]
    batch = x[None] if x.ndim == len(start) + 2 else x
    if batch.ndim != len(start) + 3 or list(batch.shape[1:-2]) != start or not len(batch):
        one = f"{', '.join(map(str, start))}, height, width)"
        raise UsageError(f"expected a tensor ({one} or (n, {one}, got {tuple(x.shape)}")
    _check_normalised(batch, prep)
    items = list(batch.detach())
    return [_shown(item, f"image{i}", prep) for i, item in enumerate(items)], items


def _check_normalised(x: Tensor, prep: Preprocessing) -> None:
    """Refuse pixels in place of a normalised input.

    Photos end where black and white do; inputs that are no photos (noise, attacks) may go on from
    there, and are far from the 0 to 255 of pixels still.
    """
    if not x.is_floating_point():
        raise UsageError(
            f"a tensor is normalised already, of floating point, not {x.dtype}: give photos as "
            "arrays (height, width, channels), paths, or what dff.read_image returns"
        )
    black = min(-m / s for m, s in zip(prep.mean, prep.std, strict=True))
    white = max((1 - m) / s for m, s in zip(prep.mean, prep.std, strict=True))
    room = BEYOND * (white - black)
    low, high = (float(bound) for bound in x.detach().aminmax())
    if low < black - room or high > white + room:
        raise UsageError(
            f"a tensor is normalised already: photos lie from {black:.3g} to {white:.3g} here, and "
            f"this one from {low:.3g} to {high:.3g}; give photos as arrays or dff.read_image "
            "reads them, or to Explainer a preprocessing= whose mean and std fit"
        )


def _shown(item: Tensor, name: str, prep: Preprocessing) -> Shot:
    if prep.frames is None:
        return (replace(pictured(prep.to_pixels(item)), name=name),)
    frames = enumerate(item.unbind(1), 1)
    return tuple(
        replace(pictured(prep.to_pixels(frame)), name=f"{name}-{i:02}") for i, frame in frames
    )


def fitting(given: Preprocessing | None, own: Preprocessing) -> Preprocessing:
    """Return the preprocessing given, else the model's own.

    One number for all channels, or ImageNet's, stand for as many channels as the model takes; and
    where it takes clips, no number of frames for its own.
    """
    if given is None:
        return own
    fitted = given.for_channels(own.channels) if given.is_general else given
    return fitted if fitted.frames else replace(fitted, frames=own.frames)


MAX_BATCH = 32

Result = TypeVar("Result")


def in_batches(sizes: Sequence[Hashable], run: Callable[[list[list[int]]], Result]) -> Result:
    """Call `run` with the indices of inputs in batches; return what it returns.

    Args:
        sizes: (n,) of the inputs; only what has the same size stands together.
        run: called again, with batches of half the size, where memory runs out.

    Raises:
        OutOfMemoryError: one input alone is too much.
    """
    most = MAX_BATCH
    while True:
        batches = _batches(sizes, most)
        try:
            return run(batches)
        except OutOfMemoryError:
            largest = max(map(len, batches))
            if largest < 2:
                raise
        most = largest // 2
        warnings.warn(
            f"memory ran out on {largest} photos at once: going on with {most}",
            RuntimeWarning,
            stacklevel=2,
        )


def _batches(sizes: Sequence[Hashable], most: int) -> list[list[int]]:
    """Group indices by size, at most `most` a group."""
    by_size: dict[Hashable, list[int]] = {}
    for i, size in enumerate(sizes):
        by_size.setdefault(size, []).append(i)
    return [
        indices[start : start + most]
        for indices in by_size.values()
        for start in range(0, len(indices), most)
    ]

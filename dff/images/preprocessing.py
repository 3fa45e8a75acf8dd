"""What a model expects of its input, and the way from a photo there.

There is one way, in two steps, for one photo and for a dataset: :meth:`Preprocessing.resize` takes
the levels of a photo, 0 to 255, to the input's size, and :meth:`Preprocessing.normalise` a batch of
such levels to the input. A single photo keeps its aspect ratio; where batches are to form, the same
preprocessing with `fixed` squashes every photo to one square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from dff.errors import UsageError
from dff.images.bands import channels_of
from dff.images.picture import Picture

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]

# The long side grows in steps of the coarsest common stride, so that a size that suits a model
# (a multiple of 32, or one more) still suits it on the long side.
STEP = 32
MAX_ELONGATION = 4
LARGEST = 10_000  # a square of it has as many pixels as a photo may have
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True, init=False)
class Preprocessing:
    """How photos become the input of a model: resized whole, scaled, normalised.

    Attributes:
        size: short side of the input, in pixels, at most 10,000.
        mean: per channel (R, G, B for three), of levels in [0, 1]; one number stands for all.
        std: likewise, positive; as many as `mean`.
        fixed: the model takes nothing but ``size`` x ``size``: photos are squashed to a square.
            Otherwise they keep their aspect ratio.
        interpolation: "bilinear" or "bicubic", antialiased.
        frames: how many frames of a clip the model takes; None of a model of images.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed: bool
    interpolation: Interpolation
    frames: int | None

    def __init__(
        self,
        *,
        size: int = 224,
        mean: float | Sequence[float] = IMAGENET_MEAN,
        std: float | Sequence[float] = IMAGENET_STD,
        fixed: bool = False,
        interpolation: Interpolation = "bilinear",
        frames: int | None = None,
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise UsageError(f"size is a positive whole number of pixels, not {size!r}")
        if size > LARGEST:
            raise UsageError(f"size is at most {LARGEST} pixels, not {size}")
        if interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation is one of {INTERPOLATIONS}, not {interpolation!r}")
        if frames is not None and (isinstance(frames, bool) or frames < 1):
            raise UsageError(
                f"frames is a positive whole number, or None for images, not {frames!r}"
            )
        centre, spread = _per_channel(mean, std)
        if min(spread) <= 0:
            raise UsageError(f"std must be positive, not {std!r}")
        values = {
            "size": int(size),
            "mean": centre,
            "std": spread,
            "fixed": bool(fixed),
            "interpolation": interpolation,
            "frames": frames,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def channels(self) -> int:
        """Number of channels of the input."""
        return len(self.mean)

    @property
    def is_general(self) -> bool:
        """Whether its numbers are of no channels in particular: one for all, or ImageNet's."""
        customary = (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD)
        return customary or (len(set(self.mean)) == 1 and len(set(self.std)) == 1)

    def for_channels(self, count: int) -> Preprocessing:
        """Return it for inputs of another number of channels, all with the mean of the numbers."""
        if count == self.channels:
            return self
        mean, std = ((sum(values) / len(values),) * count for values in (self.mean, self.std))
        return replace(self, mean=mean, std=std)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels at which a photo of this size enters the model.

        The short side is ``size``. The long side is ``size`` plus the multiple of 32 that comes
        nearest the photo's aspect ratio, and at most four times ``size``: longer panoramas are
        squashed from there on.
        """
        if height < 1 or width < 1:
            raise UsageError(f"a photo has positive sides, not {height} x {width}")
        if self.fixed:
            return self.size, self.size
        ratio = max(height, width) / min(height, width)
        steps = math.floor(self.size * (ratio - 1) / STEP + 0.5)
        longest = (MAX_ELONGATION - 1) * self.size // STEP
        long = self.size + STEP * min(steps, longest)
        return (long, self.size) if height > width else (self.size, long)

    def to_tensor(self, picture: Picture) -> torch.Tensor:
        """Return the whole photo as float32 (channels, h, w), resized and normalised.

        In memory the channels come last, as convolutions are fastest on.

        Raises:
            ImageError: it has another number of channels (:func:`dff.images.bands.channels_of`).
        """
        levels = torch.from_numpy(_lend(self.resize(picture)))
        return self.normalise(levels[None])[0].permute(2, 0, 1)

    def resize(self, picture: Picture) -> np.ndarray:
        """Return the levels (h, w, channels) of a photo at :meth:`input_size`: the first step.

        A photo stays in 8 bits (bands may be float32); the filter is antialiasing, as that of
        Pillow and so of torchvision, and the levels are within one of theirs. What has that size
        already is returned itself.
        """
        pixels = channels_of(picture, self.channels)
        size = self.input_size(*pixels.shape[:2])
        if pixels.shape[:2] == size:
            return pixels
        photo = torch.from_numpy(_lend(pixels)).permute(2, 0, 1)[None]
        resized = functional.interpolate(photo, size, mode=self.interpolation, antialias=True)
        resized = resized.clamp(0, 255) if photo.is_floating_point() else resized
        return resized[0].permute(1, 2, 0).contiguous().numpy()

    def normalise(self, levels: torch.Tensor) -> torch.Tensor:
        """Return a batch of levels (n, h, w, channels) as float32 of this shape: the second step.

        Each is ``(level / 255 - mean) / std``, on the device of the levels, and the same bit for
        bit whatever else is in the batch.
        """
        scale, shift = (
            # a value for each number of a row of pixels: R, G, B, R, G, B, ...
            torch.from_numpy(np.tile(values, levels.shape[2])).to(levels.device)
            for values in self._affine()
        )
        rows = levels.flatten(2).to(torch.float32, copy=True)
        return rows.mul_(scale).add_(shift).view(levels.shape)

    def to_pixels(self, tensor: torch.Tensor) -> np.ndarray:
        """Return a normalised tensor (channels, h, w) as uint8 (h, w, channels).

        It is :meth:`to_tensor` backwards.
        """
        if tensor.ndim != 3 or tensor.shape[0] != self.channels:
            raise UsageError(
                f"one input has the shape ({self.channels}, h, w), not {tuple(tensor.shape)}"
            )
        scale, shift = self._affine()
        values = tensor.detach().to("cpu", torch.float32).permute(1, 2, 0)
        levels = (values - torch.from_numpy(shift)) / torch.from_numpy(scale)
        rounded = levels.nan_to_num(0).round_().clamp_(0, 255).to(torch.uint8)
        return rounded.contiguous().numpy()

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (scale, shift), each (channels,) float32: input = level · scale + shift."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def _per_channel(
    mean: float | Sequence[float], std: float | Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Spread one number over the channels that the other has numbers for, else over three."""
    numbers = {"mean": _numbers("mean", mean), "std": _numbers("std", std)}
    alone = all(np.ndim(value) == 0 for value in (mean, std))
    count = 3 if alone else max(map(len, numbers.values()))
    if any(len(values) not in (1, count) for values in numbers.values()):
        raise UsageError(
            "mean and std have a number for each channel, or one for all: got "
            f"{len(numbers['mean'])} and {len(numbers['std'])}"
        )
    spread = (values * count if len(values) == 1 else values for values in numbers.values())
    centre, width = spread
    return centre, width


def _numbers(name: str, value: float | Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(value, dtype=float)))
    except (TypeError, ValueError):
        raise UsageError(f"{name} is one number, or one for each channel, not {value!r}") from None
    if not numbers or not all(math.isfinite(v) for v in numbers):
        raise UsageError(f"{name} is one finite number, or one for each channel, not {value!r}")
    return numbers


def _lend(pixels: np.ndarray) -> np.ndarray:
    """Return the same pixels marked writable, as torch wants them; nobody writes to them."""
    view = pixels.view()
    try:
        view.flags.writeable = True
    except ValueError:  # memory that is read-only itself
        return pixels.copy()
    return view

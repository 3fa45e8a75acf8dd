"""What a model expects of its input, and the way from a photo there.

There is one way, in two steps, for one photo and for a dataset: :meth:`Preprocessing.resize` takes
the 8-bit levels of a photo to the input's size, and :meth:`Preprocessing.normalise` a batch of such
levels to the input. A single photo keeps its aspect ratio; where batches are to form, the same
preprocessing with `fixed` squashes every photo to one square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from dff.errors import UsageError
from dff.images.picture import Picture

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Triple = tuple[float, float, float]
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
        mean: per channel (R, G, B), of levels in [0, 1]; one number stands for all three.
        std: likewise, positive.
        fixed: the model takes nothing but ``size`` x ``size``: photos are squashed to a square.
            Otherwise they keep their aspect ratio.
        interpolation: "bilinear" or "bicubic", antialiased.
    """

    size: int
    mean: Triple
    std: Triple
    fixed: bool
    interpolation: Interpolation

    def __init__(
        self,
        *,
        size: int = 224,
        mean: float | Sequence[float] = IMAGENET_MEAN,
        std: float | Sequence[float] = IMAGENET_STD,
        fixed: bool = False,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise UsageError(f"size is a positive whole number of pixels, not {size!r}")
        if size > LARGEST:
            raise UsageError(f"size is at most {LARGEST} pixels, not {size}")
        if interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation is one of {INTERPOLATIONS}, not {interpolation!r}")
        spread = _triple("std", std)
        if min(spread) <= 0:
            raise UsageError(f"std must be positive, not {std!r}")
        values = {
            "size": int(size),
            "mean": _triple("mean", mean),
            "std": spread,
            "fixed": bool(fixed),
            "interpolation": interpolation,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

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
        """Return the whole photo as float32 (3, h, w), resized and normalised.

        In memory the channels come last, as convolutions are fastest on.
        """
        levels = torch.from_numpy(_lend(self.resize(picture.pixels)))
        return self.normalise(levels[None])[0].permute(2, 0, 1)

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Return a photo, uint8 (height, width, 3), at :meth:`input_size`: the first step.

        It stays in 8 bits; the filter is antialiasing, as that of Pillow and so of torchvision,
        and the levels are within one of theirs. A photo of that size already is returned itself.
        """
        size = self.input_size(*pixels.shape[:2])
        if pixels.shape[:2] == size:
            return pixels
        photo = torch.from_numpy(_lend(pixels)).permute(2, 0, 1)[None]
        resized = functional.interpolate(photo, size, mode=self.interpolation, antialias=True)
        return resized[0].permute(1, 2, 0).contiguous().numpy()

    def normalise(self, levels: torch.Tensor) -> torch.Tensor:
        """Return a batch of levels, uint8 (n, h, w, 3), as float32 of this shape: the second step.

        Each is ``(level / 255 - mean) / std``, on the device of the levels, and the same bit for
        bit whatever else is in the batch.
        """
        scale, shift = (
            # a value for each number of a row of pixels: R, G, B, R, G, B, ...
            torch.from_numpy(np.tile(values, levels.shape[2])).to(levels.device)
            for values in self._affine()
        )
        return levels.flatten(2).float().mul_(scale).add_(shift).view(levels.shape)

    def to_pixels(self, tensor: torch.Tensor) -> np.ndarray:
        """Return a normalised tensor (3, h, w) as uint8 (h, w, 3): :meth:`to_tensor` backwards."""
        if tensor.ndim != 3 or tensor.shape[0] != 3:
            raise UsageError(f"one input has the shape (3, h, w), not {tuple(tensor.shape)}")
        scale, shift = self._affine()
        values = tensor.detach().to("cpu", torch.float32).permute(1, 2, 0)
        levels = (values - torch.from_numpy(shift)) / torch.from_numpy(scale)
        rounded = levels.nan_to_num(0).round_().clamp_(0, 255).to(torch.uint8)
        return rounded.contiguous().numpy()

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (scale, shift), each (3,) float32: input = level · scale + shift."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def _triple(name: str, value: float | Sequence[float]) -> Triple:
    """Spread one number over the channels, or check three."""
    try:
        numbers = [float(v) for v in np.atleast_1d(np.asarray(value, dtype=float))]
    except (TypeError, ValueError):
        raise UsageError(f"{name} is one number or three, not {value!r}") from None
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(math.isfinite(v) for v in numbers):
        raise UsageError(f"{name} is one finite number or three (R, G, B), not {value!r}")
    return numbers[0], numbers[1], numbers[2]


def _lend(pixels: np.ndarray) -> np.ndarray:
    """Return the same pixels marked writable, as torch wants them; nobody writes to them."""
    view = pixels.view()
    try:
        view.flags.writeable = True
    except ValueError:  # memory that is read-only itself
        return pixels.copy()
    return view

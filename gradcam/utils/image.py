"""Photos to inputs and back, and maps over photos, as pytorch-grad-cam's users call them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError

__all__ = ["deprocess_image", "preprocess_image", "show_cam_on_image"]


def preprocess_image(
    img: np.ndarray,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> Tensor:
    """Make a photo a model's input.

    Args:
        img: floating point (height, width, channels) in [0, 1], or uint8, which is divided by 255.
        mean: taken off each channel.
        std: what each channel is divided by.

    Returns:
        float32 (1, channels, height, width).
    """
    pixels = torch.from_numpy(np.ascontiguousarray(img))
    values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    values = (values - torch.tensor(mean)) / torch.tensor(std)
    return values.permute(2, 0, 1)[None].contiguous()


def deprocess_image(img: np.ndarray) -> np.ndarray:
    """Make values of any range a picture: their mean is grey, five standard deviations the range.

    Args:
        img: floating point, of any shape.

    Returns:
        uint8, of the same shape.
    """
    spread = (img - np.mean(img)) / (np.std(img) + 1e-5)
    return np.uint8(np.clip(0.1 * spread + 0.5, 0, 1) * 255)  # type: ignore[return-value]


def show_cam_on_image(
    img: np.ndarray,
    mask: np.ndarray,
    use_rgb: bool = False,
    colormap: int = cv2.COLORMAP_JET,
    image_weight: float = 0.5,
) -> np.ndarray:
    """Lay a map over a photo, and brighten the picture so that its brightest value is 255.

    Args:
        img: floating point (height, width, 3) in [0, 1].
        mask: (height, width) in [0, 1].
        use_rgb: whether the photo is RGB; otherwise BGR, as OpenCV reads it.
        colormap: one of OpenCV's; :func:`dff.rendering.heatmap_overlay` has colours whose
            lightness rises with the map.
        image_weight: how much of the photo shows, in [0, 1].

    Returns:
        uint8 (height, width, 3), in the order of the photo's channels.

    Raises:
        UsageError: an argument of wrong shape, type or range, or a map with NaN.
    """
    photo, heat = np.asarray(img), np.asarray(mask)
    if photo.dtype.kind != "f" or photo.ndim != 3 or photo.max() > 1 or photo.min() < 0:
        raise UsageError(
            "img is floating point (height, width, 3) in [0, 1], not "
            f"{photo.dtype} of shape {photo.shape}, up to {photo.max():.4g}; divide 8-bit pixels "
            "by 255"
        )
    if heat.shape != photo.shape[:2]:
        raise UsageError(f"the mask is {heat.shape}, but the photo is {photo.shape[:2]}")
    if not (heat.min() >= 0 and heat.max() <= 1):  # NaN is neither
        low, high = heat.min(), heat.max()
        raise UsageError(f"the mask lies in [0, 1], but came in [{low:.4g}, {high:.4g}]")
    if not 0 <= image_weight <= 1:
        raise UsageError(f"image_weight lies in [0, 1], not {image_weight!r}")
    colours = cv2.applyColorMap(np.uint8(255 * heat), colormap)
    if use_rgb:
        colours = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
    blend = (1 - image_weight) * (np.float32(colours) / 255) + image_weight * photo
    brightest = float(blend.max())
    return np.uint8(255 * (blend / brightest if brightest else blend))  # type: ignore[return-value]

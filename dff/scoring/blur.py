"""The blur that takes a region's content away and leaves its colours."""

from __future__ import annotations

from torch import Tensor

__all__ = ["blurred"]


def blurred(image: Tensor, strength: float = 1 / 16) -> Tensor:
    """Blur an image (3, height, width) until nothing can be recognised.

    Args:
        image: floating point.
        strength: standard deviation of the blur, as a part of the short side.
    """
    from torchvision.transforms.functional import gaussian_blur  # heavy

    side = min(image.shape[1:])
    sigma = max(strength * side, 0.1)
    width = 2 * min(round(3 * sigma), side - 1) + 1
    return gaussian_blur(image, [width, width], [sigma, sigma])

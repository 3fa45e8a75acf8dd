"""Grad-CAM, with gradients recorded from the target layer on and nowhere before.

- :class:`GradCAM`: maps of a model's own, called as pytorch-grad-cam's users write it.
- :func:`grad_cam`: the arithmetic, from activations and gradients that are at hand.
"""

from __future__ import annotations

from gradcam.cam import GradCAM, grad_cam

__all__ = ["GradCAM", "grad_cam"]

"""Grad-CAM, with gradients recorded from the target layer on and nowhere before.

- :class:`GradCAM`: maps of a model's own, called as pytorch-grad-cam's users write it.
- :func:`grad_cam`: the arithmetic, from activations and gradients that are at hand.
"""

from __future__ import annotations

from gradcam.cam import ActivationsAndGradients, BaseCAM
from gradcam.finer import FinerCAM
from gradcam.full_gradient import FullGrad
from gradcam.layer_grad_cam import LayerGradCam
from gradcam.methods import (
    FEM,
    KPCA_CAM,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    RandomCAM,
    ShapleyCAM,
    XGradCAM,
)
from gradcam.perturbing import AblationCAM, ScoreCAM
from gradcam.rules import grad_cam

__all__ = [
    "FEM",
    "KPCA_CAM",
    "AblationCAM",
    "ActivationsAndGradients",
    "BaseCAM",
    "EigenCAM",
    "EigenGradCAM",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "LayerGradCam",
    "RandomCAM",
    "ScoreCAM",
    "ShapleyCAM",
    "XGradCAM",
    "grad_cam",
]

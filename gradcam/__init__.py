"""The CAM family, with gradients recorded from the target layer on and nowhere before.

Called as pytorch-grad-cam's users write it; see ``docs/gradcam.md`` for what each method needs.

- :class:`GradCAM` and its kin: maps of a model, each method one rule (:mod:`gradcam.rules`) on the
  pass that all share (:class:`BaseCAM`).
- :func:`several`: several methods and classes of one photo from one pass; :data:`METHODS` by name.
- :class:`LayerGradCam`: raw Grad-CAM of any layer, by Captum's call.
- :func:`grad_cam`: the arithmetic, from activations and gradients that are at hand.
- :mod:`gradcam.utils`: targets, pictures and reshape transforms.
"""

from __future__ import annotations

from gradcam.cam import ActivationsAndGradients, BaseCAM
from gradcam.full_gradient import FullGrad
from gradcam.layer_grad_cam import LayerGradCam
from gradcam.legrad import LeGrad
from gradcam.methods import (
    FEM,
    KPCA_CAM,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    RandomCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
from gradcam.perturbing import AblationCAM, ScoreCAM
from gradcam.rules import grad_cam
from gradcam.several import METHODS, method, several
from gradcam.utils.guided_backprop import GuidedBackpropReLUModel

__all__ = [
    "FEM",
    "KPCA_CAM",
    "METHODS",
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
    "GuidedBackpropReLUModel",
    "HiResCAM",
    "LayerCAM",
    "LayerGradCam",
    "LeGrad",
    "RandomCAM",
    "ScoreCAM",
    "SegEigenCAM",
    "ShapleyCAM",
    "XGradCAM",
    "grad_cam",
    "method",
    "several",
]

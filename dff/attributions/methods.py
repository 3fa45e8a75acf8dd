"""The table of attribution methods: what each is, what it needs, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dff.attributions import captum_calls as calls
from dff.errors import UsageError, closest

__all__ = ["METHODS", "Method", "attribution_method"]


@dataclass(frozen=True, eq=False)
class Method:
    """A row of the table.

    Attributes:
        run: calls Captum.
        about: in a line, and by whom.
        settings: its settings with their defaults (:mod:`dff.attributions.settings`).
        gradients: it takes gradients of the model.
        layer: it explains by a layer, whose cells are brought to the input's size.
        rewired: it changes how activations pass gradients on, which is done on a copy
            (:func:`dff.attributions.forward.rewired`).
        repeated: it evaluates one input several times.
    """

    run: Callable[[calls.Call], calls.Result]
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    gradients: bool = True
    layer: bool = False
    rewired: str | None = None
    repeated: bool = False


_NOISE = {"samples": 20, "stdev": 0.2, "of": "saliency", "n_steps": 20, "baseline": 0.0, "seed": 0}
_CELLS = {"cells": 14, "mask": None, "baseline": 0.0}

METHODS: dict[str, Method] = {
    "saliency": Method(
        calls.saliency, "the gradient's size at each pixel (Simonyan et al. 2014)", {"abs": True}
    ),
    "input-x-gradient": Method(
        calls.input_x_gradient, "gradient times input (Shrikumar et al. 2016)"
    ),
    "integrated-gradients": Method(
        calls.integrated_gradients,
        "gradients along the line from a baseline (Sundararajan et al. 2017)",
        {"n_steps": 50, "baseline": 0.0},
        repeated=True,
    ),
    "smoothgrad": Method(
        calls.noise_tunnel("smoothgrad"),
        "the mean gradient of noisy copies (Smilkov et al. 2017)",
        _NOISE,
        repeated=True,
    ),
    "smoothgrad-sq": Method(
        calls.noise_tunnel("smoothgrad_sq"),
        "the mean squared gradient of noisy copies (Hooker et al. 2019)",
        _NOISE,
        repeated=True,
    ),
    "vargrad": Method(
        calls.noise_tunnel("vargrad"),
        "the gradient's variance over noisy copies (Adebayo et al. 2018)",
        _NOISE,
        repeated=True,
    ),
    "gradient-shap": Method(
        calls.gradient_shap,
        "expected gradients between baseline and input (Lundberg & Lee 2017)",
        {"samples": 20, "stdev": 0.09, "baseline": 0.0, "seed": 0},
        repeated=True,
    ),
    "deeplift": Method(
        calls.deeplift,
        "differences from a baseline, by the rescale rule (Shrikumar et al. 2017)",
        {"baseline": 0.0},
        rewired="elementwise",
    ),
    "guided-backprop": Method(
        calls.guided_backprop,
        "gradients through ReLUs where they are positive (Springenberg et al. 2015)",
        rewired="relu",
    ),
    "deconvolution": Method(
        calls.deconvolution,
        "positive gradients through ReLUs (Zeiler & Fergus 2014)",
        rewired="relu",
    ),
    "occlusion": Method(
        calls.occlusion,
        "what the score loses when a window is covered (Zeiler & Fergus 2014)",
        {"window": None, "stride": None, "baseline": 0.0},
        gradients=False,
        repeated=True,
    ),
    "feature-ablation": Method(
        calls.feature_ablation,
        "what the score loses when a square, or a part of a mask, is covered",
        _CELLS,
        gradients=False,
        repeated=True,
    ),
    "kernel-shap": Method(
        calls.kernel_shap,
        "Shapley values of squares by weighted regression (Lundberg & Lee 2017)",
        {**_CELLS, "cells": 8, "samples": 300, "seed": 0},
        gradients=False,
        repeated=True,
    ),
    "gradient-x-activation": Method(
        calls.gradient_x_activation,
        "gradient times activation of a layer, cell by cell",
        layer=True,
        rewired="",
    ),
    "layer-gradcam": Method(
        calls.layer_gradcam,
        "a layer's channels by their mean gradient, signed (Selvaraju et al. 2017)",
        layer=True,
        rewired="",
    ),
}
"""All methods by name."""


def attribution_method(name: str) -> Method:
    """Return a method by its name; upper or lower case, ``-`` or ``_`` do not matter.

    Raises:
        UsageError: there is no such method; the closest names are given.
    """
    plain = str(name).lower().replace("_", "-")
    if plain not in METHODS:
        hint = closest(plain, METHODS) or f"; there are {', '.join(METHODS)}"
        raise UsageError(f"there is no method {name!r}{hint}")
    return METHODS[plain]

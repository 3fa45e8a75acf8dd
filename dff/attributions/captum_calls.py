"""How Captum is called, by method: from a :class:`Call` to values, and what their sum misses.

Captum is imported where it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dff.attributions.settings import windows
from dff.errors import MissingExtraError

__all__ = [
    "Call",
    "Result",
    "captum_attr",
    "deconvolution",
    "deeplift",
    "feature_ablation",
    "gradient_shap",
    "gradient_x_activation",
    "guided_backprop",
    "input_x_gradient",
    "integrated_gradients",
    "kernel_shap",
    "layer_gradcam",
    "noise_tunnel",
    "occlusion",
    "saliency",
]

Target = tuple[int, ...] | list[tuple[int, ...]] | None
Result = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, eq=False)
class Call:
    """What Captum is called with.

    Attributes:
        forward: from inputs to scores (m, ...).
        inputs: (m, channels, height, width), m is 1 where a method evaluates more than once.
        target: the place of each input's score in the output; None for an output of one number.
        settings: all of the method's.
        batch: how many inputs run at a time.
        layer: the target layer, of methods that explain by one.
    """

    forward: nn.Module
    inputs: Tensor
    target: Target
    settings: Mapping[str, Any]
    batch: int
    layer: nn.Module | None = None

    @property
    def baseline(self) -> Any:
        """What stands for "nothing there": a number, or (1, channels, 1 or height, 1 or width)."""
        given = self.settings["baseline"]
        if not isinstance(given, Tensor):
            return given
        return given.to(self.inputs).expand_as(self.inputs[:1]).contiguous()


def saliency(call: Call) -> Result:
    captum = captum_attr()
    found = captum.Saliency(call.forward).attribute(
        call.inputs, target=call.target, abs=call.settings["abs"]
    )
    return found, None


def input_x_gradient(call: Call) -> Result:
    captum = captum_attr()
    return captum.InputXGradient(call.forward).attribute(call.inputs, target=call.target), None


def integrated_gradients(call: Call) -> Result:
    captum = captum_attr()
    found, delta = captum.IntegratedGradients(call.forward).attribute(
        call.inputs,
        baselines=call.baseline,
        target=call.target,
        n_steps=call.settings["n_steps"],
        internal_batch_size=call.batch,
        return_convergence_delta=True,
    )
    return found, delta


def noise_tunnel(kind: str) -> Callable[[Call], Result]:
    """Average, of noisy copies of the input, gradients, their squares, or their variance."""

    def run(call: Call) -> Result:
        captum, settings = captum_attr(), call.settings
        samples = settings["samples"]
        if settings["of"] == "saliency":
            inner: Any = captum.Saliency(call.forward)
            options: dict[str, Any] = {"abs": False}
        else:
            inner = captum.IntegratedGradients(call.forward)
            options = {
                "n_steps": settings["n_steps"],
                "baselines": call.baseline,
                "internal_batch_size": call.batch,
            }
        found = captum.NoiseTunnel(inner).attribute(
            call.inputs,
            nt_type=kind,
            nt_samples=samples,
            nt_samples_batch_size=min(samples, call.batch),
            stdevs=float(settings["stdev"]),
            target=call.target,
            **options,
        )
        return found, None

    return run


def gradient_shap(call: Call) -> Result:
    captum, settings = captum_attr(), call.settings
    baseline = call.baseline
    if not isinstance(baseline, Tensor):
        baseline = torch.full_like(call.inputs[:1], baseline)
    found, done = torch.zeros_like(call.inputs), 0
    while done < settings["samples"]:
        count = min(call.batch, settings["samples"] - done)
        found += count * captum.GradientShap(call.forward).attribute(
            call.inputs,
            baselines=torch.cat([baseline, call.inputs]),
            n_samples=count,
            stdevs=float(settings["stdev"]),
            target=call.target,
        )
        done += count
    return found / done, None


def deeplift(call: Call) -> Result:
    captum = captum_attr()
    baseline = call.baseline
    if isinstance(baseline, Tensor):
        baseline = baseline.expand_as(call.inputs)
    found, delta = captum.DeepLift(call.forward).attribute(
        call.inputs, baselines=baseline, target=call.target, return_convergence_delta=True
    )
    return found, delta


def guided_backprop(call: Call) -> Result:
    return captum_attr().GuidedBackprop(call.forward).attribute(
        call.inputs, target=call.target
    ), None


def deconvolution(call: Call) -> Result:
    return captum_attr().Deconvolution(call.forward).attribute(
        call.inputs, target=call.target
    ), None


def occlusion(call: Call) -> Result:
    channels, *size = call.inputs.shape[1:]
    window, stride = windows(call.settings, size)
    found = (
        captum_attr()
        .Occlusion(call.forward)
        .attribute(
            call.inputs,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *stride),
            baselines=call.baseline,
            target=call.target,
            perturbations_per_eval=call.batch,
        )
    )
    return found, None


def feature_ablation(call: Call) -> Result:
    found = (
        captum_attr()
        .FeatureAblation(call.forward)
        .attribute(
            call.inputs,
            baselines=call.baseline,
            target=call.target,
            feature_mask=_features(call),
            perturbations_per_eval=call.batch,
        )
    )
    return found, None


def kernel_shap(call: Call) -> Result:
    found = (
        captum_attr()
        .KernelShap(call.forward)
        .attribute(
            call.inputs,
            baselines=call.baseline,
            target=call.target,
            feature_mask=_features(call),
            n_samples=call.settings["samples"],
            perturbations_per_eval=call.batch,
        )
    )
    return found, None


def gradient_x_activation(call: Call) -> Result:
    method = captum_attr().LayerGradientXActivation(call.forward, call.layer)
    return _first(method.attribute(call.inputs, target=call.target)), None


def layer_gradcam(call: Call) -> Result:
    """Channels weighted by their mean gradient: (m, channels, ...), to be added up."""
    method = captum_attr().LayerGradCam(call.forward, call.layer)
    found = method.attribute(call.inputs, target=call.target, attr_dim_summation=False)
    return _first(found), None


def _features(call: Call) -> Tensor:
    """Return which feature each pixel belongs to (1, 1, height, width), numbered from 0."""
    mask, (height, width) = call.settings["mask"], call.inputs.shape[-2:]
    if mask is None:
        cells = call.settings["cells"]
        rows = torch.arange(height) * min(cells, height) // height
        cols = torch.arange(width) * min(cells, width) // width
        mask = rows[:, None] * min(cells, width) + cols
    mask = torch.as_tensor(mask).long().reshape(1, 1, height, width)
    return mask.unique(return_inverse=True)[1].to(call.inputs.device)


def _first(found: Any) -> Tensor:
    return found[0] if isinstance(found, tuple) else found


def captum_attr() -> Any:
    """Return Captum's module of methods.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from captum import attr
    except ImportError:
        raise MissingExtraError("captum", "attributions") from None
    return attr

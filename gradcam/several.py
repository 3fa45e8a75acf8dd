"""Several methods and several classes of one photo, from one pass of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from dff.activations.borrowing import plainly
from dff.activations.context import Inputs, of_images
from dff.errors import UsageError, closest
from gradcam.cam import BaseCAM, ResolvedTargets
from gradcam.full_gradient import FullGrad
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
from gradcam.recording import Layer, Recording
from gradcam.scores import Target

__all__ = ["METHODS", "method", "several"]

METHODS: dict[str, type[BaseCAM]] = {
    "gradcam": GradCAM,
    "hirescam": HiResCAM,
    "gradcam-elementwise": GradCAMElementWise,
    "gradcam++": GradCAMPlusPlus,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "eigencam": EigenCAM,
    "eigengradcam": EigenGradCAM,
    "segeigencam": SegEigenCAM,
    "kpca-cam": KPCA_CAM,
    "scorecam": ScoreCAM,
    "ablationcam": AblationCAM,
    "fullgrad": FullGrad,
    "randomcam": RandomCAM,
    "finercam": FinerCAM,
    "shapleycam": ShapleyCAM,
    "fem": FEM,
    "legrad": LeGrad,
}
"""All methods by name."""


def method(name: str | type[BaseCAM]) -> type[BaseCAM]:
    """Return a method by its name, in upper or lower case, or by its class's.

    Raises:
        UsageError: there is no such method; the closest names are given.
    """
    if not isinstance(name, str):
        return name
    known = {_plain(key): value for key, value in METHODS.items()}
    known.update({_plain(value.__name__): value for value in METHODS.values()})
    if _plain(name) not in known:
        hint = closest(name.lower(), METHODS) or f"; there are {', '.join(METHODS)}"
        raise UsageError(f"there is no method {name!r}{hint}")
    return known[_plain(name)]


def several(
    model: nn.Module,
    target_layers: Sequence[nn.Module | str] | nn.Module | str,
    input_tensor: Inputs,
    methods: Sequence[str | type[BaseCAM]] = ("gradcam",),
    targets: Sequence[Target] | Tensor | None = None,
    *,
    eigen_smooth: bool = False,
    progress: Callable[[str], object] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Return the maps of one photo by several methods, for several classes.

    The model runs once; every class takes one backward pass from the first layer on, which all
    methods share. FullGrad, LeGrad and ShapleyCAM record other passes, one a class; ScoreCAM and
    AblationCAM add those that they consist of.

    Args:
        model, target_layers: see :class:`~gradcam.cam.BaseCAM`.
        input_tensor: (1, channels, height, width), or all that the model takes, with it.
        methods: keys of :data:`METHODS`, or classes.
        targets: classes by index or name, or callables; None is the most likely class.
        eigen_smooth: see :meth:`~gradcam.cam.BaseCAM.__call__`.
        progress: called with the name of each method before it begins; the pass that they share is
            part of the first one.
        options: of all methods, such as ``reshape_transform`` and ``signed``.

    Returns:
        By the name of each method as given (a class's own), (targets, height, width) float32.

    Raises:
        UsageError: an unknown method, or more than one photo.
        DFFError: what the methods raise.
    """
    model, input_tensor = of_images(model, input_tensor)
    if len(input_tensor) != 1:
        raise UsageError(f"several() takes one photo (1, channels, ...), not {len(input_tensor)}")
    cams = {
        name if isinstance(name, str) else name.__name__: _built(
            name, model, target_layers, options
        )
        for name in methods
    }
    classes = [None] if targets is None else [[target] for target in targets]
    shared = [cam for cam in cams.values() if cam.shares_pass]
    # One that uses gradients records what the others need as well.
    leader = next((cam for cam in shared if cam.uses_gradients), shared[0] if shared else None)

    def maps() -> dict[str, np.ndarray]:
        passed: _Passed | None = None
        found = {}
        for name, cam in cams.items():
            if progress is not None:
                progress(name)
            if passed is None and leader is not None and cam.shares_pass:
                passed = _Passed(leader.record(input_tensor))
            asked = classes if cam.uses_targets else classes[:1]
            rows = [
                passed.maps(cam, wanted, eigen_smooth)
                if passed is not None and cam.shares_pass
                else cam.forward(input_tensor, wanted, eigen_smooth)
                for wanted in asked
            ]
            found[name] = np.concatenate(rows * (len(classes) // len(rows)))
        return found

    return plainly(maps)


class _Passed:
    """One pass, and the gradients that were taken of it, by target."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._layers: dict[tuple[Any, ...], list[Layer]] = {}

    def maps(self, cam: BaseCAM, targets: Any, smooth: bool) -> np.ndarray:
        wanted: ResolvedTargets = cam.resolved(self.recording, targets)
        key = (*wanted,) if cam.uses_gradients else ()
        if key not in self._layers:
            self._layers[key] = cam.layers_of(self.recording, wanted, keep=True)
        return cam.maps_of(self.recording, self._layers[key], wanted, smooth)


def _built(
    name: str | type[BaseCAM], model: nn.Module, layers: Any, options: dict[str, Any]
) -> BaseCAM:
    chosen = method(name)
    if chosen is LeGrad:  # its layers are the transformer's blocks
        return LeGrad(model, None, **options)
    return chosen(model, layers, **options)


def _plain(name: str) -> str:
    return name.lower().replace("++", "plusplus").replace("-", "").replace("_", "")

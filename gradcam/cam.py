"""The call that all methods share: one pass, maps of its layers by a rule, maps of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dff.activations import LayoutLike, resolve_layer
from dff.activations.borrowing import borrowed, plainly
from dff.activations.context import Inputs, of_images
from dff.activations.layouts import each_tensor
from dff.activations.reach import no_gradients
from dff.errors import LayerError, ModelError, UsageError
from dff.maps import Grid, rescale, upsample
from gradcam.recording import Layer, Recording
from gradcam.rules import first_component
from gradcam.scores import Targets, class_scores, resolve, score

__all__ = ["ActivationsAndGradients", "BaseCAM", "ResolvedTargets", "stretched"]

ResolvedTargets = Sequence[int | Callable[[Any], Tensor]]
Self = TypeVar("Self", bound="BaseCAM")


class BaseCAM:
    """What the methods have in common. A method is a rule: see :meth:`weighted`.

    ``GradCAM(model, target_layers)(input_tensor, targets)`` equals pytorch-grad-cam's map. The
    forward pass records nothing before the first target layer, so the cost beyond it is that of the
    layers after. Nothing stays registered on the model between calls; using it as a context
    manager is possible and makes no difference. Weights may be frozen, the call may be made inside
    of ``torch.no_grad()``, and of a ``DataParallel`` the module runs on its own device.

    Args:
        model: run in evaluation mode and given back in its own.
        target_layers: layers by module or dotted name; their maps are averaged.
        reshape_transform: how to read the layers' output as maps (batch, channels, rows, cols):
            None recognises it; or a callable, or a :class:`dff.activations.layouts.Layout`.
        class_names: names of the logits, for targets given by name.
        signed: keep what speaks against the target, too: maps in [-1, 1].
        normalise: scale each map by its own range; otherwise it has the units of activation times
            gradient, and adds up as the method's paper says.
        grid: where the cells of the target layers lie in the input, which all have the same; None
            takes them for tiles, as pytorch-grad-cam does.

    Raises:
        LayerError: a layer is not the model's; the closest names are given.
        UsageError: there is no target layer.
    """

    uses_gradients: ClassVar[bool] = True
    uses_curvature: ClassVar[bool] = False
    uses_targets: ClassVar[bool] = True
    shares_pass: ClassVar[bool] = True
    """Whether the maps come from a pass as others make it, too: see :func:`gradcam.several`."""
    batch_size: int = 64
    """How many copies of an image run at a time, where a method asks for more passes."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str] | nn.Module | str,
        reshape_transform: LayoutLike = None,
        *,
        class_names: Sequence[str] | None = None,
        signed: bool = False,
        normalise: bool = True,
        grid: Grid | None = None,
    ) -> None:
        self.model = model.module if isinstance(model, nn.DataParallel) else model
        self.target_layers = _names(self.model, target_layers)
        self.reshape_transform = reshape_transform
        self.class_names = class_names
        self.signed, self.normalise, self.grid = signed, normalise, grid
        self.outputs: Any = None
        self.activations_and_grads = ActivationsAndGradients(self.model)

    def weighted(self, layer: Layer) -> Tensor:
        """Return the activations weighted (n, channels, *grid), whose sum is the method's map.

        Raises:
            UsageError: a method of your own without this rule.
        """
        raise UsageError(
            f"{type(self).__name__} has no rule for its map: define weighted(layer), which returns "
            "the activations weighted (n, channels, rows, cols)"
        )

    def flattened(self, weighted: Tensor, eigen_smooth: bool) -> Tensor:
        """Return one map (n, *grid) of the weighted activations."""
        return first_component(weighted) if eigen_smooth else weighted.sum(1)

    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """Return the maps of a batch.

        Args:
            input_tensor: (batch, channels, height, width), normalised as the model expects; or
                (batch, channels, depth, height, width); or a tuple or dict of all that the model
                takes, with such a tensor in it. The model may be a :class:`dff.Given`, too.
            targets: one for each image: a class index, a class name, or a callable from the
                output of one image to a number; a single one serves the whole batch; None is
                each image's most likely class.
            aug_smooth: average the maps of the images and of their mirror images, each at 0.9,
                1 and 1.1 times its values: six passes.
            eigen_smooth: take the first principal component of the weighted activations in place
                of their sum.

        Returns:
            float32 (batch, height, width), each map in [0, 1] by its own range (see `signed` and
            `normalise`); a constant map is 0.

        Raises:
            UsageError: targets that do not fit the batch or the model's classes; no image among
                the inputs, or several; batch sizes that disagree.
            LayerError: a layer that does not run or has no grid.
            ModelError: the model failed, no gradient passes, or there are NaN.
        """
        if not isinstance(input_tensor, Tensor):
            bound = copy(self)
            bound.model, images = of_images(self.model, input_tensor)
            maps = bound(images, targets, aug_smooth, eigen_smooth)
            self.outputs = bound.outputs
            return maps
        if not aug_smooth:
            return self.forward(input_tensor, targets, eigen_smooth)
        total = np.zeros((), np.float32)
        for factor in (0.9, 1.1, 1.0):  # the photo as it is comes last: its outputs stay
            mirrored = self.forward(input_tensor.flip(-1) * factor, targets, eigen_smooth)
            total = total + mirrored[..., ::-1]
            total = total + self.forward(input_tensor * factor, targets, eigen_smooth)
        return np.asarray(total / 6, np.float32)

    def forward(
        self, input_tensor: Tensor, targets: Targets = None, eigen_smooth: bool = False
    ) -> np.ndarray:
        """Return the maps of a batch, of the images as they are: see :meth:`__call__`."""
        return plainly(lambda: self._forward(input_tensor, targets, eigen_smooth))

    def _forward(self, input_tensor: Tensor, targets: Targets, smooth: bool) -> np.ndarray:
        recording = self.record(input_tensor)
        wanted = self.resolved(recording, targets)
        layers = self.layers_of(recording, wanted)
        self._remember(recording, layers)
        return self.maps_of(recording, layers, wanted, smooth)

    def record(self, input_tensor: Tensor, *, whole: bool = False) -> Recording:
        """Run the model once; `whole` records from the input on.

        Raises:
            ModelError: the method needs gradients, and none pass this model.
        """
        if self.uses_gradients and (reason := no_gradients(self.model)):
            raise ModelError(f"{reason}; so do EigenCAM, KPCA_CAM, FEM, ScoreCAM and AblationCAM")
        weight = next(self.model.parameters(), None)
        x = input_tensor if weight is None else input_tensor.to(weight.device)
        grad = self.uses_gradients
        return Recording(
            self.model, self.target_layers, x, self.reshape_transform, grad=grad, whole=whole
        )

    def resolved(self, recording: Recording, targets: Targets) -> ResolvedTargets:
        """Return a target for each image; none where the method explains no class."""
        if not self.uses_targets:
            return []
        count = len(recording.x)
        return resolve(
            targets,
            lambda: class_scores(self.model, recording.output, count).detach(),
            count,
            self.class_names,
        )

    def layers_of(
        self, recording: Recording, targets: ResolvedTargets, *, keep: bool = False
    ) -> list[Layer]:
        """Return the layers' activations, with what the method needs of the targets' gradients."""
        if not self.uses_gradients:
            return recording.layers()
        total = score(self.model, recording.output, targets).sum()
        return recording.layers(total, second=self.uses_curvature, keep=keep)

    def maps_of(
        self, recording: Recording, layers: Sequence[Layer], targets: ResolvedTargets, smooth: bool
    ) -> np.ndarray:
        """Return the maps (n, height, width) of what one pass left."""
        size = tuple(recording.x.shape[2:])
        with torch.no_grad():
            small = [self.layer_map(recording, one, targets, smooth) for one in layers]
            maps = [_enlarged(self._alike(one.float().cpu()), size, self.grid) for one in small]
            return self._scaled(torch.stack(maps).mean(0)).numpy()

    def layer_map(
        self, recording: Recording, layer: Layer, targets: ResolvedTargets, smooth: bool
    ) -> Tensor:
        """Return the map (n, *grid) of one layer, signed and not normalised."""
        return self.flattened(self.weighted(layer), smooth)

    def _alike(self, maps: Tensor) -> Tensor:
        """Clip maps (n, *grid) of one layer, and scale them so that layers can be averaged."""
        kept = maps if self.signed else maps.relu()
        if not self.normalise:
            return kept
        return _to_unit(kept) if self.signed else stretched(kept)

    def _scaled(self, maps: Tensor) -> Tensor:
        """Clip and normalise maps (n, *size), as the method was asked to."""
        kept = maps if self.signed else maps.relu()
        if not self.normalise:
            return kept
        if self.signed:
            return _to_unit(kept)
        return rescale(kept.flatten(1)[:, None]).reshape(kept.shape)

    def _remember(self, recording: Recording, layers: Sequence[Layer]) -> None:
        self.outputs = each_tensor(recording.output, torch.Tensor.detach)
        if isinstance(recording.output, Tensor):
            self.outputs = recording.output.detach()
        kept = self.activations_and_grads
        kept.activations = [layer.activations for layer in layers]
        kept.gradients = [one.gradients for one in layers if one.gradients is not None]

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.activations_and_grads.release()


class ActivationsAndGradients:
    """What the last call left: ``activations`` and ``gradients``, one (n, channels, *grid) a layer.

    Called on images, it runs the model and returns its output.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.activations: list[Tensor] = []
        self.gradients: list[Tensor] = []

    def __call__(self, x: Tensor) -> Any:
        return borrowed(self.model, lambda: self.model(x), grad=torch.is_grad_enabled())

    def release(self) -> None:
        """Forget them. Nothing is registered on the model that would have to go."""
        self.activations, self.gradients = [], []


def _names(model: nn.Module, layers: Sequence[nn.Module | str] | nn.Module | str) -> list[str]:
    # A Sequential is a layer although one can iterate over it.
    single = isinstance(layers, (nn.Module, str))
    several: list[nn.Module | str] = [layers] if single else list(layers)  # type: ignore
    if not several:
        raise UsageError("target_layers is empty; name at least one layer")
    return [_name(model, layer) for layer in several]


def _name(model: nn.Module, layer: nn.Module | str) -> str:
    try:
        return resolve_layer(model, layer)[0]
    except LayerError:
        if isinstance(layer, str) and layer.startswith("module."):  # as DataParallel names it
            return resolve_layer(model, layer.removeprefix("module."))[0]
        raise


def stretched(maps: Tensor, first: int = 1, least: float = 1e-7) -> Tensor:
    """Scale every map to [0, 1] by its own range; those that hold next to nothing, to less.

    Args:
        maps: any shape whose axes from `first` on are a map's.
        first: 1 for (n, *grid), 2 for (n, channels, *grid).
        least: what counts as next to nothing, as in pytorch-grad-cam.
    """
    flat = maps.flatten(first)
    low = flat - flat.amin(-1, keepdim=True)
    return (low / (low.amax(-1, keepdim=True) + least)).reshape(maps.shape)


def _to_unit(maps: Tensor) -> Tensor:
    """Scale signed maps (n, *grid) to [-1, 1], 0 staying 0."""
    flat = maps.flatten(1)
    most = flat.abs().amax(1, keepdim=True)
    return torch.where(most > 0, flat / most.clamp_min(1e-30), 0.0).reshape(maps.shape)


def _enlarged(maps: Tensor, size: tuple[int, ...], grid: Grid | None) -> Tensor:
    """Interpolate maps (n, *grid) to the input's size: linearly; volumes by cubic splines."""
    if maps.dim() == 3:
        return upsample(maps, (int(size[-2]), int(size[-1])), grid)
    from scipy import ndimage  # slow to import, and for volumes only

    scales = [1.0, *(big / small for big, small in zip(size, maps.shape[1:], strict=True))]
    return torch.from_numpy(ndimage.zoom(maps.numpy(), scales, order=3))

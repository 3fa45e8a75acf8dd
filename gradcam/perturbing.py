"""The methods that try what a channel does to the score: no gradients, but more passes.

For an image with C channels, :class:`AblationCAM` runs the rest of the model C times, in batches,
and :class:`ScoreCAM` the whole model, since it masks the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dff.activations import Tail, record
from dff.activations.borrowing import borrowed
from dff.activations.context import given_rows
from dff.activations.failures import model_errors
from dff.activations.layouts import each_tensor, tensors_of
from dff.activations.memory import stored_like
from dff.activations.tail import BUDGET
from dff.errors import UsageError
from dff.maps import Grid, rescale, upsample
from gradcam.cam import BaseCAM, ResolvedTargets
from gradcam.recording import Layer, Recording
from gradcam.scores import score

__all__ = ["AblationCAM", "ScoreCAM"]

ResolvedTarget = int | Callable[[Any], Tensor]


class _PerturbingCAM(BaseCAM, ABC):
    """Channels weighted by what trying them does to the score of each image."""

    uses_gradients = False

    def layer_map(
        self, recording: Recording, layer: Layer, targets: ResolvedTargets, smooth: bool
    ) -> Tensor:
        weights = [
            self.channel_weights(recording, layer, i, target) for i, target in enumerate(targets)
        ]
        A = layer.activations
        shape = (*A.shape[:2], *[1] * (A.dim() - 2))
        return self.flattened(torch.stack(weights).to(A).reshape(shape) * A, smooth)

    @abstractmethod
    def channel_weights(
        self, recording: Recording, layer: Layer, item: int, target: ResolvedTarget
    ) -> Tensor:
        """Return the weight (channels,) of each channel for one image of the pass."""

    def scores(self, outputs: Any, count: int, target: ResolvedTarget) -> Tensor:
        """Return the scores (count,) of that many variants of an image."""
        return score(self.model, outputs, [target] * count)

    def original(self, recording: Recording, item: int, target: ResolvedTarget) -> Tensor:
        """Return the score () of one image of the pass as it is."""
        return score(self.model, recording.output, [target] * len(recording.x))[item]

    def batches(self, channels: Sequence[int], values: int) -> Iterator[Sequence[int]]:
        """Yield channels, as many as run at a time, each with that many values."""
        step = max(1, min(int(self.batch_size), BUDGET // values))
        for start in range(0, len(channels), step):
            yield channels[start : start + step]


class ScoreCAM(_PerturbingCAM):
    """Channels weighted by the score of the image seen through them (Wang et al., CVPRW 2020).

    A channel, upsampled and scaled to [0, 1], multiplies the image; the softmax over all channels'
    scores are the weights (Algorithm 1). Channels without a place, of one value throughout, share
    one pass.

    ``batch_size`` is 16, but on a processor 4, or one for each thread: more fall out of its caches.

    Args:
        ratio_channels: in (0, 1]: the share of channels tried, those that vary most over the grid;
            the others weigh nothing. All of them are the paper's method.
        args, options: see :class:`~gradcam.cam.BaseCAM`.

    Raises:
        UsageError: a ratio that is none.
    """

    def __init__(self, *args: Any, ratio_channels: float = 1.0, **options: Any) -> None:
        super().__init__(*args, **options)
        weight = next(self.model.parameters(), None)
        threads = torch.get_num_threads() if weight is None or weight.device.type == "cpu" else 16
        self.batch_size = min(16, max(4, threads))
        self.ratio_channels = _ratio("ratio_channels", ratio_channels)

    def channel_weights(
        self, recording: Recording, layer: Layer, item: int, target: ResolvedTarget
    ) -> Tensor:
        image, A = recording.x[item : item + 1], layer.activations[item]
        flat = A.flatten(1)
        count = max(1, round(len(A) * self.ratio_channels))
        order = flat.std(1, correction=0).argsort(descending=True)[:count]
        constant = flat.amax(1) == flat.amin(1)
        seen = order[~constant[order]].tolist()
        flats = order[constant[order]].tolist()
        places = seen + flats[:1]
        found = torch.full((len(A),), float("-inf"), device=A.device)
        with model_errors(self.model, image):
            for channels in self.batches(places, image.numel()):
                masks = _masks(A[list(channels)], image, self.grid)
                masked = stored_like(image * masks, image)
                model = given_rows(self.model, [item] * len(masked), exact=True)
                outputs = borrowed(model, lambda model=model, x=masked: model(x))  # type: ignore[misc]
                found[list(channels)] = self.scores(outputs, len(channels), target).to(found)
        if flats:
            found[flats] = found[flats[0]].clone()
        return found.softmax(0)


class AblationCAM(_PerturbingCAM):
    """Channels weighted by the share of the score that is lost without them (WACV 2020, eq. 3).

    Desai & Ramaswamy, "Ablation-CAM". A channel is set to 0, and the rest of the model runs again.

    Args:
        ratio_channels_to_ablate: in (0, 1]: the channels tried, those with the greatest mean
            activations first; the others weigh nothing.
        ablation_layer: pytorch-grad-cam's argument; the layer's layout says how to ablate it.
        batch_size: how many channels are tried at a time.
        args, options: see :class:`~gradcam.cam.BaseCAM`.

    Raises:
        UsageError: a ratio that is none.
    """

    def __init__(
        self,
        *args: Any,
        ablation_layer: object = None,
        batch_size: int = 256,
        ratio_channels_to_ablate: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.batch_size = batch_size
        self.ratio_channels_to_ablate = _ratio("ratio_channels_to_ablate", ratio_channels_to_ablate)

    def channel_weights(
        self, recording: Recording, layer: Layer, item: int, target: ResolvedTarget
    ) -> Tensor:
        A = layer.activations[item]
        flat = A.flatten(1)
        count = max(1, round(len(A) * self.ratio_channels_to_ablate))
        strongest = flat.abs().mean(1).argsort(descending=True)[:count].tolist()
        tried = [c for c in strongest if flat[c].any()]  # without a channel of 0, nothing changes
        run = self._whole if layer.reading is None else self._tail
        lost = torch.zeros(len(A), device=A.device)
        whole = self.original(recording, item, target).to(lost)
        for channels in self.batches(tried, A.numel()):
            lost[list(channels)] = whole - run(recording, layer, item, channels, target).to(lost)
        return lost / whole

    def _tail(
        self,
        recording: Recording,
        layer: Layer,
        item: int,
        channels: Sequence[int],
        target: ResolvedTarget,
    ) -> Tensor:
        """Return the scores without each of the channels, by the rest of the model alone."""
        A = layer.activations[item]
        if A.dim() == 4:  # frames lie one below the other, as the layout has them
            A = A.flatten(1, 2)
        count = len(channels)
        maps = A.expand(count, *A.shape).clone()
        maps[torch.arange(count), list(channels)] = 0
        tail = Tail(
            self.model,
            layer.name,
            recording.x,
            layout=layer.reading,
            score=lambda outputs: self.scores(outputs, count, target)[:, None],
            batch=count,
        )
        return tail(maps, item)[:, 0]

    def _whole(
        self,
        recording: Recording,
        layer: Layer,
        item: int,
        channels: Sequence[int],
        target: ResolvedTarget,
    ) -> Tensor:
        """Return the same by the whole model, where a layer puts out several tensors of channels.

        They are those of a transform that lays them side by side, such as a feature pyramid's.
        """
        count, total = len(channels), layer.activations.shape[1]

        def without(output: Any) -> Any:
            left = list(channels)
            tensors = tensors_of(output)
            if sum(tensor.shape[1] for tensor in tensors) != total:
                raise UsageError(
                    f"AblationCAM cannot tell which channels of layer {layer.name!r} the reshape "
                    "transform reads: it needs one that only rearranges; EigenCAM, ScoreCAM and "
                    "the gradient methods do not"
                )

            def ablated(tensor: Tensor) -> Tensor:
                changed = tensor.clone()
                for row, channel in enumerate(left):
                    if 0 <= channel < changed.shape[1]:
                        changed[row, channel] = 0
                left[:] = [channel - changed.shape[1] for channel in left]
                return changed

            return each_tensor(output, ablated)

        image = recording.x[item : item + 1]
        copies = stored_like(image.expand(count, *image.shape[1:]), image)
        with model_errors(self.model, image):
            model = given_rows(self.model, [item] * count, exact=True)
            output, _ = record(model, [layer.name], copies, grad=False, change=without)
        return self.scores(output, count, target)


def _ratio(name: str, ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise UsageError(f"{name} lies in (0, 1], not {ratio!r}")
    return ratio


def _masks(channels: Tensor, image: Tensor, grid: Grid | None) -> Tensor:
    """Return channels (n, *grid) as masks (n, 1, height, width) in [0, 1] of an image.

    Without a grid, the outermost cells lie on the outermost pixels, as in pytorch-grad-cam.
    """
    size = tuple(image.shape[2:])
    if channels.dim() == 3 and grid is not None:
        masks = upsample(channels, (size[0], size[1]), grid)[:, None]
        return rescale(masks).to(image)
    if channels.dim() == 3:
        way = {"mode": "bilinear", "align_corners": True}
    else:
        way = {"mode": "trilinear", "align_corners": True}
    masks = functional.interpolate(channels[:, None], size, **way)  # type: ignore[arg-type]
    flat = masks.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low + 1e-8)).reshape(masks.shape).to(image)

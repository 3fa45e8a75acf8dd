"""One pass of a model, from which any number of methods and classes take their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dff.activations import LayoutLike, reading_of, record
from dff.activations.failures import model_errors
from dff.activations.layouts import (
    Layout,
    Rearrangement,
    each_tensor,
    main_tensor,
    tensors_of,
)
from dff.activations.recognition import Ends
from dff.errors import LayerError, ModelError

__all__ = ["Layer", "Recording", "reading_for"]

Reader = Callable[[Any], Tensor]
"""From a layer's output to maps (batch, channels, *grid)."""


@dataclass(frozen=True, eq=False)
class Layer:
    """What a method's rule is given of one layer.

    Attributes:
        name: of the layer.
        activations: (n, channels, *grid), without a graph.
        gradients: the same shape, of the score; None without gradients.
        curvature: the same shape, the score's Hessian times the activations, where asked for.
        reading: how the layer's output reads as these maps, for what puts maps in its place.
    """

    name: str
    activations: Tensor
    gradients: Tensor | None = None
    curvature: Tensor | None = None
    reading: LayoutLike = None


class Recording:
    """What a pass left: the output of the model, and of its layers.

    Args:
        model: any module.
        names: of the layers.
        x: (n, channels, height, width) images, or (n, channels, depth, height, width) volumes.
        layout: how to read what the layers put out: None recognises it.
        grad: record gradients, from the first of the layers on.
        whole: record them from the input on, which then is the first of the layers, "input".

    Raises:
        LayerError: a layer that does not run or has no grid.
        ModelError: the model failed.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        x: Tensor,
        layout: LayoutLike = None,
        *,
        grad: bool = True,
        whole: bool = False,
    ) -> None:
        self.model, self.names, self.x = model, list(names), x
        leaf = x.detach().clone().requires_grad_() if whole else x

        def run() -> Any:
            torch.set_grad_enabled(whole)
            return model(leaf)

        with model_errors(model, x):
            self.output, self.kept = record(model, names, x, grad=grad, run=run)
        if whole:
            self.names.insert(0, "input")
            self.kept.insert(0, leaf)
        self.readings = [
            reading_for(name, kept, x, layout)
            for name, kept in zip(self.names, self.kept, strict=True)
        ]

    def layers(
        self, score: Tensor | None = None, *, second: bool = False, keep: bool = False
    ) -> list[Layer]:
        """Return the layers, with the gradients of a score where there is one.

        Args:
            score: () of the output.
            second: with the curvature, too.
            keep: whether other scores of this pass follow.

        Raises:
            ModelError: no gradient reaches any layer.
        """
        if score is None:
            gradients: list[Any] = [None] * len(self.kept)
            curvatures = gradients
        else:
            gradients, curvatures = self._gradients(score, second, keep)
        return [
            Layer(
                name,
                _finite(self._maps(i, self.kept[i]), name, "activations"),
                self._read(i, gradients[i], "gradients"),
                self._read(i, curvatures[i], "second derivatives"),
                None if callable(self.readings[i]) else self.readings[i],
            )
            for i, name in enumerate(self.names)
        ]

    def _gradients(self, score: Tensor, second: bool, keep: bool) -> tuple[list[Any], list[Any]]:
        """Return first and second derivatives, those of each layer in the form of its output."""
        if not score.requires_grad:
            raise ModelError(
                "the score does not depend on the target layer: no gradient reaches it"
            )
        flat = [tensor for kept in self.kept for tensor in tensors_of(kept)]
        first = torch.autograd.grad(
            score, flat, allow_unused=True, retain_graph=keep or second, create_graph=second
        )
        if not second:
            return self._in_form(first), [None] * len(self.kept)
        curved = [(g, a) for g, a in zip(first, flat, strict=True) if g is not None and g.grad_fn]
        hessian: Sequence[Tensor | None] = [None] * len(flat)
        if curved:
            sources, along = zip(*curved, strict=True)
            hessian = torch.autograd.grad(
                sources, flat, [a.detach() for a in along], allow_unused=True, retain_graph=keep
            )
        return self._in_form(first), self._in_form(hessian)

    def _in_form(self, values: Sequence[Tensor | None]) -> list[Any]:
        """Return values of all tensors as each layer's output holds them; 0 where there is none."""
        rest = iter(values)

        def next_of(tensor: Tensor) -> Tensor:
            value = next(rest)
            return torch.zeros_like(tensor) if value is None else value.detach()

        return [each_tensor(kept, next_of) for kept in self.kept]

    def _read(self, i: int, value: Any, what: str) -> Tensor | None:
        return None if value is None else _finite(self._maps(i, value), self.names[i], what)

    def _maps(self, i: int, output: Any) -> Tensor:
        reading = self.readings[i]
        output = each_tensor(output, lambda t: t.dequantize() if t.is_quantized else t.detach())
        maps = reading(output) if callable(reading) else reading.to_maps(main_tensor(output))
        if not isinstance(maps, Tensor) or maps.dim() not in (4, 5):
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise LayerError(
                "the reshape transform must return maps (batch, channels, rows, cols), got "
                f"{shape} of layer {self.names[i]!r}"
            )
        frames = getattr(reading, "frames", None)
        return maps.float() if frames is None else maps.unflatten(2, (frames, -1)).float()


def reading_for(
    name: str, output: Any, x: Tensor, layout: LayoutLike
) -> Layout | Rearrangement | Reader:
    """Return how a layer's output reads: a callable of the user's own stays what it is."""
    if callable(layout) and not isinstance(layout, (Layout, Rearrangement, Ends)):
        return layout
    try:
        return reading_of(name, output, x, layout)
    except LayerError:
        tensor = main_tensor(output)
        if layout is not None or len(tensor) != len(x):
            raise
        if tensor.dim() == 5:
            return main_tensor
        if tensor.dim() == 4 and tuple(tensor.shape[1:3]) == (1, 1):
            return Layout("channels_last", 1, 1)
        if tensor.dim() == 4 and min(tensor.shape[2:]) == 1:
            return Layout("maps", *tensor.shape[2:])
        raise


def _finite(maps: Tensor, name: str, what: str) -> Tensor:
    if not bool(torch.isfinite(maps.sum())):  # one that is not makes the sum so
        raise ModelError(
            f"the {what} of layer {name!r} hold NaN or infinity: there is no map of them; look at "
            "the input, the weights, and the precision the model runs in"
        )
    return maps

"""The rest of a model after a layer, as a function from maps to scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dff.activations.borrowing import borrowed, plainly
from dff.activations.context import Inputs, given_rows, of_images
from dff.activations.failures import model_errors
from dff.activations.hooks import (
    LayoutLike,
    Replaced,
    intercept,
    observe,
)
from dff.activations.memory import stored_like
from dff.activations.names import resolve_layer, split_part, split_run
from dff.activations.outputs import Score, read_scores
from dff.errors import ModelError

__all__ = ["Tail", "after_layer", "run_scored"]

BATCH = 64
BUDGET = 2**24
"""Values of maps that go through at a time, at most: large grids go in smaller batches."""


class Tail:
    """What a model makes of a layer's maps: call it on maps (m, channels, rows, cols).

    The images go through the layers before once, and the rest of the model goes on with the
    maps given instead of theirs. What does not pass through the layer (class and register
    tokens, a connection around it) comes from the image that each item is said to come from.

    Args:
        model: any module.
        layer: dotted name or module.
        inputs: (n, 3, height, width) images, or all that the model takes, one of which is the
            images (:func:`dff.activations.intercept`); the others go with their image.
        layout: see :func:`dff.activations.intercept`.
        score: from the model's output to scores (m, classes); None reads the logits.
        batch: most items at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        inputs: Inputs,
        *,
        layout: LayoutLike = None,
        score: Score | None = None,
        batch: int = BATCH,
    ) -> None:
        self.model, self.inputs = of_images(model, inputs)
        self.layer = resolve_layer(model, layer)[0]
        self.layout = layout
        self.score = score
        self.batch = batch
        self._repeats = False

    def __call__(self, maps: Tensor, item: int = 0) -> Tensor:
        """Return the scores (m, classes) of maps (m, channels, rows, cols).

        Gradients flow back to `maps` where they require it and gradients are on.

        Args:
            maps: activations after the layer, in any precision: the model's is taken.
            item: the image that the maps come from.

        Raises:
            ModelError: the model failed on them.
        """
        batch = max(1, min(self.batch, BUDGET // maps[0].numel()))
        parts = [
            self._scores(maps[start : start + batch], item) for start in range(0, len(maps), batch)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _scores(self, maps: Tensor, item: int) -> Tensor:
        grad = maps.requires_grad and torch.is_grad_enabled()
        image = self.inputs[item : item + 1]
        model = given_rows(self.model, [item] * len(maps), exact=True)
        # Clones go in, so that an in-place operation further on does not change the caller's maps.
        if not self._repeats:
            try:
                scores = self._run(model, image, lambda _: Replaced(maps.clone()), grad)
                if len(scores) == len(maps):
                    return scores
            except ModelError:
                if len(maps) == 1:
                    raise
        # The model does not take another batch halfway: as many copies of the image then.
        repeated = stored_like(image.expand(len(maps), *image.shape[1:]), image)
        scores = self._run(model, repeated, lambda _: maps.clone(), grad)
        self._repeats = True
        return scores

    def _run(
        self, model: nn.Module, x: Tensor, fn: Callable[[Tensor], Tensor | Replaced], grad: bool
    ) -> Tensor:
        return run_scored(model, self.layer, x, fn, layout=self.layout, score=self.score,
                          grad=grad)  # fmt: skip

    def whole(self, images: Tensor, item: int = 0) -> Tensor:
        """Return the whole model's scores (m, classes) of images (m, 3, height, width).

        What else the model takes is that of the image `item`.
        """
        parts = stored_like(images.to(self.inputs), self.inputs).split(self.batch)

        def scores() -> Tensor:
            outputs = [
                given_rows(self.model, [item] * len(part), exact=True)(part) for part in parts
            ]
            return torch.cat([read_scores(output, self.score) for output in outputs])

        return plainly(lambda: borrowed(self.model, scores), grad=False)

    def modules(self) -> list[nn.Module]:
        """Return the modules without children that run after the layer, once each."""
        return after_layer(given_rows(self.model, [0]), self.layer, self.inputs[:1])


def run_scored(
    model: nn.Module,
    layer: str,
    x: Tensor,
    fn: Callable[[Tensor], object],
    *,
    layout: LayoutLike = None,
    score: Score | None = None,
    grad: bool = False,
) -> Tensor:
    """Intercept a layer and return the scores, with the model's own errors explained.

    Inference mode and autocast are left aside, so that scores compare whoever asks for them.

    Raises:
        DFFError: what :func:`dff.activations.intercept` and `fn` raise.
        OutOfMemoryError: memory ran out.
        ModelError: the model failed; its own error is the cause.
    """

    def scores() -> Tensor:
        output = intercept(model, layer, fn, x, grad=grad, layout=layout)  # type: ignore[arg-type]
        return read_scores(output, score)

    with model_errors(model, x):
        return plainly(scores, grad=grad)


def after_layer(model: nn.Module, layer: str, x: Tensor) -> list[nn.Module]:
    """Return the modules without children that run after a layer and not before it, once each."""
    before: set[nn.Module] = set()
    after: dict[nn.Module, int] = {}
    passed = [False]
    ending, run = split_run(split_part(layer)[0])
    left = [run or 1]

    def visit(name: str, module: nn.Module, _output: object) -> None:
        if not passed[0]:
            before.add(module)
        elif next(module.children(), None) is None:
            after[module] = after.get(module, 0) + 1
        left[0] -= name == ending
        passed[0] = passed[0] or not left[0]

    observe(model, visit, x)
    return [module for module, runs in after.items() if runs == 1 and module not in before]

"""Models that take more than an image: one input is the image, all others are its context.

:class:`Given` makes such a model one of images alone, with the context given, so that all that
works for models of images works for it. Context is fixed. Each of its tensors and arrays holds an
item for each image, or one for all: where the image stands several times in a batch, or concepts
in its place, its item is repeated. Scalars, strings and what is marked :class:`Fixed` are handed
over as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from dff.activations.layouts import each_leaf, named_leaves
from dff.errors import UsageError

__all__ = [
    "IMAGE",
    "Arguments",
    "Fixed",
    "Given",
    "Inputs",
    "found_image",
    "given_rows",
    "of_images",
]


Inputs = Any
"""The image tensor (batch, 3, height, width), or all that a model takes, one of which is it."""


class _ImageType:
    """The type of :data:`IMAGE`."""

    def __repr__(self) -> str:
        return "IMAGE"


IMAGE: Final = _ImageType()
"""Stands for the image among a model's inputs."""


class Fixed:
    """An input beside the image that is the same whatever the batch, such as texts to compare."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Arguments:
    """A model's inputs, positional and by keyword; :data:`IMAGE` stands for the image."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    @classmethod
    def of(cls, inputs: Any) -> Arguments:
        """Return inputs as arguments: a mapping's by keyword, a sequence's by position."""
        if isinstance(inputs, Arguments):
            return inputs
        if isinstance(inputs, Mapping):
            return cls(**inputs)
        return cls(*inputs) if isinstance(inputs, (tuple, list)) else cls(inputs)

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield what is in them, however nested, each with the words for where it stands."""
        for number, value in enumerate(self.args):
            yield from named_leaves(value, f"input {number}")
        for name, value in self.kwargs.items():
            yield from named_leaves(value, name)

    def each(self, visit: Callable[[Any], Any]) -> Arguments:
        """Return them with `visit` applied to all that is in them."""
        args = [each_leaf(value, visit) for value in self.args]
        return Arguments(*args, **{k: each_leaf(v, visit) for k, v in self.kwargs.items()})

    def with_image(self) -> Arguments:
        """Return them with the image's place: first, where none is said.

        Raises:
            UsageError: it has several places.
        """
        places = [place for place, leaf in self.leaves() if leaf is IMAGE]
        if len(places) > 1:
            raise UsageError(
                f"the image has several places, {' and '.join(places)}: put dff.IMAGE at one"
            )
        return self if places else Arguments(IMAGE, *self.args, **self.kwargs)


class Given(nn.Module):
    """A model of images alone: another model, with all else that it takes given.

    ``Given(vqa, question, length)`` is called on images as ``vqa(images, question, length)`` is;
    :data:`IMAGE` says where the image goes if it is not the first input:
    ``Given(model, input_ids=ids, pixel_values=IMAGE)``. Layers have the names, and modules are
    those, of the model itself, which is not touched.

    Args:
        model: any module; of a DataParallel the module runs on its own device.
        args, kwargs: its other inputs, tensors nested in tuples, lists, dicts and dataclasses.

    Raises:
        UsageError: the image has several places.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        inner = model.module if isinstance(model, nn.DataParallel) else model
        self.__dict__["model"] = inner  # no child: layers keep their names
        self.arguments = Arguments(*args, **kwargs).with_image()
        self.exact = False

    def given(self, *args: Any, **kwargs: Any) -> Given:
        """Return the same model with other inputs beside the image."""
        return Given(self.model, *args, **kwargs)

    def forward(self, images: Tensor) -> Any:
        """Return the model's output for images (n, channels, height, width).

        Raises:
            UsageError: an input beside them has neither n items nor one.
        """
        arguments = self.arguments if self.exact else self._expanded(len(images))
        filled = arguments.each(
            lambda leaf: (
                images if leaf is IMAGE else leaf.value if isinstance(leaf, Fixed) else leaf
            )
        )
        return self.model(*filled.args, **filled.kwargs)

    def check(self, count: int) -> None:
        """Raise unless the context fits so many images.

        Raises:
            UsageError: it holds neither so many items nor one.
        """
        for place, leaf in self.arguments.leaves():
            if _is_batch(leaf) and len(leaf) not in (1, count):
                raise UsageError(
                    f"{place} has {len(leaf)} items for {count} image{'s' * (count != 1)}: give "
                    "one for each, or one for all; what is no batch is marked dff.Fixed(...)"
                )

    @property
    def varies(self) -> bool:
        """Whether images have context of their own."""
        return any(_is_batch(leaf) and len(leaf) > 1 for _, leaf in self.arguments.leaves())

    def rows(self, rows: Sequence[int], *, exact: bool = False) -> Given:
        """Return the model with the context of some of the images, in that order.

        Args:
            rows: places of the images in the batch that the context is of.
            exact: each row once, whatever the batch that comes in.
        """
        index = torch.as_tensor(list(rows))
        chosen = Given(self.model)
        chosen.exact = exact
        chosen.arguments = self.arguments.each(
            lambda leaf: (
                _chosen(leaf, index) if _is_batch(leaf) and (exact or len(leaf) > 1) else leaf
            )
        )
        return chosen

    def _expanded(self, count: int) -> Arguments:
        self.check(count)
        index = torch.zeros(count, dtype=torch.long)
        return self.arguments.each(
            lambda leaf: (
                _chosen(leaf, index) if _is_batch(leaf) and len(leaf) == 1 < count else leaf
            )
        )

    @property
    def original_name(self) -> str:
        """The class of the model itself."""
        return str(getattr(self.model, "original_name", type(self.model).__name__))

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # while it is copied
            raise AttributeError(name)
        return getattr(self.model, name)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """Yield the model's own."""
        return self.model.named_modules(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the model's own."""
        return self.model.named_children()

    def get_submodule(self, target: str) -> nn.Module:
        """Return the model's own."""
        return self.model.get_submodule(target)


def given_rows(model: nn.Module, rows: Sequence[int], *, exact: bool = False) -> nn.Module:
    """Return :meth:`Given.rows` of a model with context, and any other model as it is."""
    return model.rows(rows, exact=exact) if isinstance(model, Given) else model


def of_images(model: nn.Module, inputs: Any) -> tuple[nn.Module, Tensor]:
    """Return a model of images alone, and the images, for what a model is called with.

    Raises:
        UsageError: no image among the inputs, or several that may be it; or as many of something
            else as there are no images.
    """
    if isinstance(inputs, Tensor):
        return model, inputs
    image, arguments = found_image(inputs)
    if not arguments.args[1:] and not arguments.kwargs and arguments.args[:1] == (IMAGE,):
        return model, image
    bound = Given(model, *arguments.args, **arguments.kwargs)
    if image.dim() > 3:
        bound.check(len(image))
    return bound, image


def found_image(inputs: Any) -> tuple[Tensor, Arguments]:
    """Return the image among a model's inputs, and the inputs with :data:`IMAGE` in its place.

    It is the one tensor of floating point with four axes or more; else the one with three.

    Raises:
        UsageError: there is none, or there are several.
    """
    arguments = Arguments.of(inputs)
    tensors = [(place, leaf) for place, leaf in arguments.leaves() if isinstance(leaf, Tensor)]
    batches = [(place, t) for place, t in tensors if t.dim() > 3]
    candidates = [(place, t) for place, t in batches if t.is_floating_point()]
    candidates = candidates or batches or [(place, t) for place, t in tensors if t.dim() == 3]
    if len(candidates) != 1:
        there = ", ".join(f"{place} {tuple(t.shape)}" for place, t in candidates or tensors)
        what = "several inputs may be the image" if candidates else "no input is an image"
        raise UsageError(
            f"{what} (batch, channels, height, width): {there or 'there is no tensor'}; say which "
            "by dff.Given(model, ...) with dff.IMAGE in its place, and give the image by itself"
        )
    image = candidates[0][1]
    return image, arguments.each(lambda leaf: IMAGE if leaf is image else leaf)


def _is_batch(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim > 0


def _chosen(leaf: Tensor | np.ndarray, index: Tensor) -> Tensor | np.ndarray:
    """Return rows of a tensor or array; of a single row, as often as there are indices."""
    rows = torch.zeros_like(index) if len(leaf) == 1 else index
    return leaf[rows.to(leaf.device)] if isinstance(leaf, Tensor) else leaf[rows.numpy()]

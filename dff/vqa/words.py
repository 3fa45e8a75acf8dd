"""Integrated gradients over a picture and the words of a question together.

Sundararajan et al. 2017, section 3, from a black picture (0 in the normalised input) and a question
of padding alone to what was asked. There are two ways to the words, which give the same numbers:

- "layer": Captum's ``LayerIntegratedGradients`` on a ``ModelInputWrapper``, whose inputs are layers
  as the embedding is;
- "embedding": the embedding layer is replaced by one that lets embeddings through
  (:func:`interpretable`), and ``IntegratedGradients`` is taken of picture and embeddings.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dff.activations.borrowing import borrowed, plainly
from dff.activations.names import resolve_layer
from dff.errors import MissingExtraError, UsageError

__all__ = ["WAYS", "Attributed", "attribute", "interpretable"]

WAYS = ("layer", "embedding")


@dataclass(frozen=True, eq=False)
class Attributed:
    """What picture and words contribute to one answer.

    ``total == end - start + delta``.

    Attributes:
        image: (channels, height, width) of the picture's values.
        words: (n,) of the question's words, summed over their embeddings.
        start: the logit for the black picture and the empty question.
        end: the logit.
        delta: what the contributions exceed their difference by.
    """

    image: Tensor
    words: Tensor
    start: float
    end: float
    delta: float

    @property
    def total(self) -> float:
        """All contributions, of picture and words."""
        return float(self.image.sum() + self.words.sum())


def attribute(
    model: nn.Module,
    image: Tensor,
    question: Tensor,
    *others: Any,
    embedding: str | nn.Module,
    target: int,
    pad: int = 0,
    steps: int = 128,
    way: str = "layer",
) -> Attributed:
    """Return what the picture and each word contribute to one answer of a model.

    The model is called as ``model(image, question, *others)``; it runs in evaluation mode and is
    given back as it was, after failures, too.

    Args:
        model: any module, in a DataParallel or not.
        image: (1, channels, height, width) normalised.
        question: (1, words) int64.
        others: what else it takes, such as the question's length.
        embedding: the layer that takes the question, by name or module.
        target: the answer's index.
        pad: the word number of the reference.
        steps: of the integral, by the Gauss-Legendre rule.
        way: one of :data:`WAYS`.

    Raises:
        UsageError: another way, or more than one picture or question.
        LayerError: no such layer.
        MissingExtraError: Captum is not installed.
    """
    if way not in WAYS:
        raise UsageError(f"way is one of {', '.join(WAYS)}, not {way!r}")
    if len(image) != 1 or question.dim() != 2 or len(question) != 1:
        raise UsageError(
            "expected one picture (1, channels, height, width) and one question (1, words), got "
            f"{tuple(image.shape)} and {tuple(question.shape)}"
        )
    model = model.module if isinstance(model, nn.DataParallel) else model
    if isinstance(embedding, str):
        embedding = embedding.removeprefix("module.")  # as DataParallel names it
    name, _ = resolve_layer(model, embedding)
    question, reference = question.detach(), torch.full_like(question, pad)
    image = image.detach()
    find = _by_layer if way == "layer" else _by_embedding

    def work() -> tuple[Tensor, Tensor, Tensor]:
        ends = [
            model(x, q, *others)[0, target].detach()
            for x, q in ((torch.zeros_like(image), reference), (image, question))
        ]
        with torch.backends.cudnn.flags(enabled=False):  # its LSTM has no gradient in evaluation
            found = find(model, name, image, question, reference, others, target, steps)
        return found[0].detach(), found[1].detach(), torch.stack(ends)

    pixels, embedded, ends = plainly(lambda: borrowed(model, work, grad=True))
    words = embedded[0].sum(-1)
    start, end = ends.tolist()
    delta = float(pixels.sum() + words.sum()) - (end - start)
    return Attributed(pixels[0].cpu(), words.cpu(), start, end, delta)


@contextmanager
def interpretable(model: nn.Module, embedding: str | nn.Module) -> Iterator[nn.Module]:
    """Let a model take embeddings in place of numbers of words, inside of the ``with``.

    Yields the embedding layer itself, which makes them. It is put back whatever happens.

    Raises:
        LayerError: no such layer.
    """
    name, layer = resolve_layer(model, embedding)
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    owner._modules[child] = _LetThrough()
    try:
        yield layer
    finally:
        owner._modules[child] = layer


class _LetThrough(nn.Module):
    """Returns the embeddings that it is handed."""

    def forward(self, embedded: Tensor) -> Tensor:
        return embedded


def _by_layer(
    model: nn.Module,
    name: str,
    image: Tensor,
    question: Tensor,
    reference: Tensor,
    others: Sequence[Any],
    target: int,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Return what the picture's values and the embeddings contribute, by Captum's layers."""
    captum = _captum()
    wrapped = _wrapped(model)
    layers = [next(iter(wrapped.input_maps.values())), model.get_submodule(name)]
    # Captum warns of layers that depend on each other: picture and embedding do not.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Multiple layers provided")
        integrated = captum.LayerIntegratedGradients(wrapped, layers)
        found = integrated.attribute(
            inputs=(image, question),
            baselines=(torch.zeros_like(image), reference),
            additional_forward_args=tuple(others),
            target=target,
            n_steps=steps,
        )
    pixels, embedded = (one[0] if isinstance(one, tuple) else one for one in found)
    return pixels, embedded


def _by_embedding(
    model: nn.Module,
    name: str,
    image: Tensor,
    question: Tensor,
    reference: Tensor,
    others: Sequence[Any],
    target: int,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Return the same by an embedding layer that is set and given back."""
    captum = _captum()
    with interpretable(model, name) as layer:
        with torch.no_grad():
            embedded, empty = layer(question), layer(reference)
        pixels, words = captum.IntegratedGradients(model).attribute(
            inputs=(image, embedded),
            baselines=(torch.zeros_like(image), empty),
            additional_forward_args=tuple(others),
            target=target,
            n_steps=steps,
        )
    return pixels, words


def _wrapped(model: nn.Module) -> Any:
    """Return Captum's view of a model whose inputs are layers."""
    from captum.attr._utils.input_layer_wrapper import ModelInputWrapper  # exported nowhere

    return ModelInputWrapper(model)


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError:
        raise MissingExtraError("captum", "attributions") from None
    return captum.attr

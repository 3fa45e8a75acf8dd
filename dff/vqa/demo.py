"""The demo's model that answers questions on creatures, ready to be asked."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dff.activations import Given
from dff.demo import model
from dff.demo.vqa import ANSWERS, encode, load
from dff.explain import Explainer
from dff.images import Preprocessing

__all__ = ["encoded", "vqa_explainer"]

LAYER = "backbone.layer4"
FIRST = "what is on the picture"


def vqa_explainer() -> Explainer:
    """Return an explainer of the embedded model, for :func:`dff.vqa.ask`.

    Raises:
        ModelError: its weights are missing from the installation.
    """
    prep = Preprocessing(size=model.INPUT_SIZE, mean=model.MEAN, std=model.STD)
    given = Given(load(), *encode(FIRST))
    return Explainer(given, layer=LAYER, preprocessing=prep, class_names=ANSWERS)


def encoded(questions: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each question with its word numbers and its length, as the model takes them.

    Unknown words are named in a warning.

    Raises:
        UsageError: an empty question.
    """
    return {question: encode(question) for question in questions}

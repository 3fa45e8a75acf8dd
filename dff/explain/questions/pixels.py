"""Which pixels make a concept: attributions of a concept's strength to the model's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dff.attributions import Attribution, TargetLayer, attribute
from dff.concepts import concept_index
from dff.errors import UsageError
from dff.explain.photo import Photo
from dff.scoring import ConceptEncoder

__all__ = ["METHOD", "ConceptLike", "Settings", "photo_encoder", "photo_pixels"]

METHOD = "integrated-gradients"
Settings = Mapping[str, Any] | None
ConceptLike = int | str | Sequence[int | str]
"""A concept by index, from 0, or name; or several of them, of one photo."""


def photo_encoder(photo: Photo) -> ConceptEncoder:
    """Return the photo's model up to its layer, and its concepts, as a module."""
    return ConceptEncoder(photo.tail.model, photo.tail.layer, photo.bank, layout=photo.tail.layout)


def photo_pixels(
    photos: Sequence[Photo],
    concept: ConceptLike,
    method: str = METHOD,
    settings: Settings = None,
) -> Attribution:
    """Attribute the strength of a concept in each photo to the pixels of the model's input.

    Several concepts of one photo, or one for each photo, take a row each.
    """
    first = photos[0]
    wanted = [concept] if isinstance(concept, (int, np.integer, str)) else list(concept)
    indices = [concept_index(first.bank.names, each) for each in wanted]
    inputs = [photo.image for photo in photos]
    for photo in photos:
        photo.check_still("the attribution of a concept to pixels")
    if len({tuple(x.shape) for x in inputs}) > 1:
        raise UsageError(
            "these photos have inputs of different sizes: ask each alone, as in "
            "[one.pixels(concept) for one in result]"
        )
    # Seen from the encoder, the layer of the concepts is one of its model.
    layer = TargetLayer(f"model.{first.tail.layer}", first.tail.layout, first.layer_grid)
    return attribute(
        photo_encoder(first),
        torch.stack(inputs),
        indices[0] if len(indices) == 1 else indices,
        method,
        layer=layer,
        settings=settings,
    )

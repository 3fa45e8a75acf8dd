"""Models by name: build them, load their weights, know their preprocessing and class names.

- :func:`load_model`: a name (torchvision, ``timm:``, ``hf:``, ``file.py:factory``, ``demo``).
- :func:`describe`: a module of the user's own.
- :class:`ImageTextSimilarity`: a model of images and texts as a classifier: a text is a class.
- :func:`list_models`: the names to choose from.
"""

from __future__ import annotations

from dff.models.detectors import with_all_boxes
from dff.models.given import given_model
from dff.models.loaded import LoadedModel, describe, without_head
from dff.models.similarity import ImageTextSimilarity
from dff.models.sources import is_code, list_models, load_model
from dff.models.weights import load_weights, read_weights

__all__ = [
    "ImageTextSimilarity",
    "LoadedModel",
    "describe",
    "given_model",
    "is_code",
    "list_models",
    "load_model",
    "load_weights",
    "read_weights",
    "with_all_boxes",
    "without_head",
]

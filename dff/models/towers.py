"""Models of images and texts, and the part of them that sees images alone."""

from __future__ import annotations

import inspect

from torch import nn

from dff.errors import ModelError

__all__ = ["image_tower", "takes_texts"]

TOWERS = ("vision_model", "vision_tower", "image_model")
"""Where models of images and texts keep the part that sees images."""


def takes_texts(module: nn.Module) -> bool:
    """Whether a Hugging Face model wants a text beside an image."""
    texts = hasattr(getattr(module, "config", None), "text_config")
    return texts and "input_ids" in inspect.signature(module.forward).parameters


def image_tower(module: nn.Module, name: str) -> nn.Module:
    """Return the part of a model of images and texts that takes images alone.

    Raises:
        ModelError: it has none.
    """
    for part, tower in module.named_modules():
        if part.rpartition(".")[2] in TOWERS:
            return tower
    raise ModelError(
        f"{name} is a {type(module).__name__}, of images and texts, and has no part for images "
        f"alone (looked for {', '.join(TOWERS)}); give a module of your own"
    )

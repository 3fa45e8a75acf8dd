"""What an explainer may be given: a name, a loaded model, a module, a Hugging Face pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dff.errors import UsageError
from dff.models.loaded import LoadedModel, describe, processed_by
from dff.models.sources import load_model

__all__ = ["given_model"]


def given_model(model: Any, device: str | torch.device | None = None) -> LoadedModel:
    """Return any model as loaded; only what was built here is moved to a device.

    Args:
        model: a name for :func:`dff.load_model`, what that returns, a module, or a pipeline of the
            transformers package that takes images: its model and its image processor.
        device: for models by name; None leaves it where it is.

    Raises:
        UsageError: something else, a device that cannot be used, or one for a model of the user's.
        ModelError: see :func:`dff.load_model`, :func:`dff.describe`.
    """
    inner: Any = getattr(model, "model", None)
    pipeline = not isinstance(model, nn.Module) and isinstance(inner, nn.Module)
    if isinstance(model, nn.Module) or pipeline:
        if device is not None:
            raise UsageError(
                "device= is for models given by name; move your module yourself: model.to(device)"
            )
        if not pipeline:
            return describe(model)
        described = describe(inner)
        processor = getattr(model, "image_processor", None)
        return replace(described, preprocessing=processed_by(processor, described.preprocessing))
    if not isinstance(model, (str, LoadedModel)):
        raise UsageError(
            "expected a model: a name, a torch.nn.Module, what dff.load_model returns, or a "
            f"pipeline of transformers, not a {type(model).__name__}"
        )
    loaded = load_model(model) if isinstance(model, str) else model
    loaded = replace(loaded, unscored=loaded.unscored or describe(loaded.module).unscored)
    if device is not None:
        try:
            loaded.module.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"the device {str(device)!r} cannot be used: {reason}") from error
    return loaded

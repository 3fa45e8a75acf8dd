"""What is known of a model: the module, its name, preprocessing and class names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from dff.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

__all__ = ["LoadedModel", "describe", "preprocessing_from"]


@dataclass(frozen=True)
class LoadedModel:
    """A model and what is needed to feed it and to read its output.

    Attributes:
        module: the network.
        name: for titles and for what is saved, such as "resnet50".
        preprocessing: how photos become its input.
        class_names: one for each logit, in order; None where unknown.
    """

    module: nn.Module
    name: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None


def describe(module: nn.Module) -> LoadedModel:
    """Return what a module says of itself: timm's and Hugging Face's configurations are read.

    A module that says nothing gets ImageNet's customary preprocessing at 224 px. What is wrapped
    in DataParallel or ``torch.compile`` is unwrapped: layers have their own names then, and hooks
    are heard.
    """
    module = unwrapped(module)
    name = type(module).__name__
    settings = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(settings, dict) and "mean" in settings:
        return LoadedModel(
            module, str(settings.get("architecture") or name), preprocessing_from(settings)
        )
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        return LoadedModel(module, name, _hugging_face(config), hugging_face_labels(config))
    return LoadedModel(module, name, Preprocessing())


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and ``torch.compile``."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        else:
            inner = getattr(module, "_orig_mod", module)
        if inner is module or not isinstance(inner, nn.Module):
            return module
        module = inner


def preprocessing_from(settings: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing of a timm configuration."""
    return Preprocessing(
        size=int(settings.get("input_size", (3, 224, 224))[-1]),
        mean=settings.get("mean", IMAGENET_MEAN),
        std=settings.get("std", IMAGENET_STD),
        fixed=bool(settings.get("fixed_input_size", False)),
        interpolation="bicubic" if settings.get("interpolation") == "bicubic" else "bilinear",
    )


def _hugging_face(config: Any) -> Preprocessing:
    size = getattr(config, "image_size", None) or 224
    if isinstance(size, (list, tuple)):
        size = min(size)
    return Preprocessing(size=int(size))


def hugging_face_labels(config: Any) -> tuple[str, ...] | None:
    """Return the class names of a Hugging Face configuration; None for placeholders."""
    named = getattr(config, "id2label", None) or {}
    if not named or all(str(v) == f"LABEL_{k}" for k, v in named.items()):
        return None
    return tuple(str(named[key]) for key in sorted(named, key=int))

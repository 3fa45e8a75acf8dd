"""The settings of methods: what each means, and what it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError, closest

__all__ = ["SETTINGS", "checked", "windows"]

SETTINGS = {
    "abs": "true or false: the gradient's size, or the gradient with its sign",
    "baseline": "a number, or a tensor that fits one normalised input: what stands for nothing",
    "cells": "a whole number from 1 on: squares along each side of the input",
    "mask": "a tensor (height, width) of whole numbers: the feature of each pixel",
    "n_steps": "a whole number from 2 on: points of the line",
    "of": "saliency or integrated-gradients: what is taken of each noisy copy",
    "samples": "a whole number from 1 on: how many copies",
    "seed": "a whole number: of the random draws",
    "stdev": "a number above 0: of the noise, in the normalised input's units",
    "stride": "a whole number from 1 on: pixels from a window to the next",
    "window": "a whole number from 1 on: pixels along a side of the window",
}
"""All settings, by the name that methods share."""

TUTORIAL = 224
"""Side of the input that Captum's tutorial uses windows of 15 pixels for, 8 pixels apart."""


def checked(method: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's settings: the defaults, and in their place what is given.

    Raises:
        UsageError: a setting that the method does not have, or that cannot be.
    """
    for name, value in given.items():
        if name not in defaults:
            has = f"; it has {', '.join(defaults)}" if defaults else "; it has none"
            raise UsageError(f"{method} has no setting {name!r}{closest(name, defaults) or has}")
        if not _may_be(name, value) and not (value is None and defaults[name] is None):
            raise UsageError(f"{method}: {name} is {SETTINGS[name]}, not {value!r:.60}")
    return {**defaults, **given}


def _may_be(name: str, value: Any) -> bool:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if name == "baseline":
        return isinstance(value, Tensor) or (number and bool(np.isfinite(value)))
    if name == "mask":
        return isinstance(value, Tensor) and not value.is_floating_point()
    if name == "of":
        return value in ("saliency", "integrated-gradients")
    if name == "abs":
        return isinstance(value, bool)
    if name == "stdev":
        return number and bool(np.isfinite(value)) and value > 0
    least = {"n_steps": 2, "seed": -(2**63)}.get(name, 1)
    return number and int(value) == value and value >= least


def windows(settings: Mapping[str, Any], size: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the window and the stride of occlusion (height, width) for an input of that size.

    By default they are as large a part of it as in Captum's tutorial.

    Raises:
        UsageError: windows that would leave pixels out between them.
    """
    scale = min(size) / TUTORIAL
    window = settings["window"] or max(settings["stride"] or 1, round(15 * scale))
    stride = settings["stride"] or max(1, min(window, round(8 * scale)))
    if stride > window:
        raise UsageError(
            f"occlusion: a stride of {stride} leaves pixels out between windows of "
            f"{window}: give a stride of {window} at most"
        )
    return [min(window, side) for side in size], [min(stride, side) for side in size]


def fitting_baseline(settings: Mapping[str, Any], inputs: Tensor) -> None:
    """Raise unless a baseline and a mask that are tensors fit one of the inputs.

    Raises:
        UsageError: they do not.
    """
    for name, fits in (("baseline", inputs.shape[1:]), ("mask", inputs.shape[-2:])):
        value = settings.get(name)
        if not isinstance(value, Tensor):
            continue
        shape = tuple(value.shape)
        try:
            sound = torch.broadcast_shapes(shape, (1, *fits)) == (1, *fits)
        except RuntimeError:
            sound = False
        if not sound or (name == "mask" and value.numel() != fits[0] * fits[1]):
            raise UsageError(f"{name} is {SETTINGS[name]}, here {tuple(fits)}, not {shape}")

"""Which methods there are to compare, and which of them a model can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

import gradcam
from dff import attributions
from dff.activations.reach import no_gradients
from dff.attributions.settings import checked
from dff.errors import DFFError, ModelError, UsageError, closest
from dff.explain import Explainer
from dff.explain.questions.pixels import METHOD

__all__ = [
    "CONCEPTS",
    "CONCEPT_PIXELS",
    "check_methods",
    "check_model",
    "check_settings",
    "known_methods",
    "pixel_method",
]

CONCEPTS, CONCEPT_PIXELS = "concepts", "concept-pixels"
DEFAULT = (CONCEPTS, "gradcam", "layercam")
WITH_CAPTUM = ("integrated-gradients", "saliency")


def known_methods() -> tuple[str, ...]:
    """Return the names of all methods: by concepts, the CAM family's, Captum's."""
    return (CONCEPTS, CONCEPT_PIXELS, *gradcam.METHODS, *attributions.METHODS)


def pixel_method(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the attribution method of "concept-pixels", and the settings that are left for it.

    Raises:
        UsageError: there is no such method.
    """
    left = dict(settings)
    name = str(left.pop("of", METHOD)).lower().replace("_", "-")
    attributions.attribution_method(name)
    return name, left


def check_methods(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the methods asked for, each once; None is a choice that takes seconds.

    Raises:
        UsageError: there is no such method; the closest names are given.
        MissingExtraError: one is Captum's, which is not installed.
    """
    if names is None:
        return DEFAULT + (WITH_CAPTUM if find_spec("captum") else ())
    if not names:
        raise UsageError("no method to compare: name at least one")
    known = {_plain(name): name for name in known_methods()}
    chosen: dict[str, None] = {}
    for name in names:
        if _plain(name) not in known:
            hint = closest(str(name).lower(), known_methods())
            raise UsageError(
                f"there is no method {name!r}{hint or '; there are ' + ', '.join(known_methods())}"
            )
        chosen[known[_plain(name)]] = None
    if any(name in attributions.METHODS or name == CONCEPT_PIXELS for name in chosen):
        attributions.captum_attr()
    return tuple(chosen)


def check_settings(
    methods: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each method that was given any.

    Raises:
        UsageError: of a method that is not compared, or that has no such setting.
    """
    given = {}
    for name, values in (settings or {}).items():
        (method,) = check_methods([name])
        if method not in methods:
            raise UsageError(f"settings of {name!r}, which is not among the methods to compare")
        name, own = pixel_method(values) if method == CONCEPT_PIXELS else (method, values)
        if name not in attributions.METHODS:
            raise UsageError(f"{name} has no settings")
        plain = {k: v for k, v in own.items() if k != "baseline" or not isinstance(v, str)}
        checked(name, attributions.METHODS[name].settings, plain)
        given[method] = values
    return given


def check_model(methods: Sequence[str], explainer: Explainer) -> None:
    """Raise with the reason if a method cannot explain a model.

    Raises:
        ModelError: it cannot; the message says which methods can.
    """
    if explainer.headless:
        raise ModelError(f"methods are compared on classes: {explainer.unscored}")
    for method in methods:
        if reason := why_not(method, explainer):
            able = [name for name in known_methods() if why_not(name, explainer) is None]
            raise ModelError(f"{reason}; this model can have {', '.join(able)}")


def why_not(method: str, explainer: Explainer) -> str | None:
    """Return why a method cannot explain a model at its layer; None where it can."""
    model: nn.Module = explainer.model
    if method in attributions.METHODS:
        layer = attributions.TargetLayer(explainer.layer)
        return attributions.why_not(method, model, layer)
    if explainer.unscored:
        return f"{method}: {explainer.unscored}"
    if method in (CONCEPTS, CONCEPT_PIXELS):
        return f"{method}: {reason}" if (reason := no_gradients(model)) else None
    kind = gradcam.METHODS[method]
    if kind.uses_gradients and no_gradients(model):
        return f"{method} needs gradients, and none pass int8 layers"
    try:
        kind(model, None if method == "legrad" else explainer.layer)  # type: ignore[arg-type]
    except DFFError as error:
        return str(error).partition(":")[0]
    return None


def _plain(name: object) -> str:
    return str(name).strip().lower().replace("_", "-").replace("++", "plusplus").replace("-", "")

"""All methods on all photos by all models, each on the same input and the same logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from dff.comparing.asking import PhotoMethods, Told
from dff.comparing.comparison import MethodComparison
from dff.comparing.measuring import check_metrics, measured
from dff.comparing.names import (
    CONCEPT_PIXELS,
    CONCEPTS,
    check_methods,
    check_model,
    check_settings,
)
from dff.comparing.records import PhotoRows
from dff.concepts import Concepts
from dff.errors import UsageError
from dff.explain import Explainer
from dff.explain.inputs import Images, as_list
from dff.explain.photo import Photo, Target
from dff.explain.shared import ClassScore

__all__ = ["Classes", "compare"]

Classes = int | Sequence[Target]
"""How many of each photo's likeliest classes, or which classes."""


def compare(
    images: Images,
    *,
    model: Any = "resnet50",
    methods: Sequence[str] | None = None,
    classes: Classes = 3,
    concepts: Concepts = 5,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    metrics: Sequence[str] | None = None,
    batch: int = 16,
    progress: Told | None = None,
) -> MethodComparison:
    """Explain photos by several methods, to be seen in one panel.

    Args:
        images: as :class:`dff.Explainer` takes them; each photo has concepts of its own.
        model: an explainer, or what one is made of (:class:`dff.Explainer`); or a list of several.
        methods: names of :func:`dff.comparing.known_methods`; None is a choice that takes seconds.
        classes: how many of each photo's likeliest classes; or a list of classes, by index or name.
        concepts: how many, as in a call of an explainer.
        settings: of Captum's methods, by their names (:data:`dff.attributions.METHODS`). A baseline
            may also be "black" or "white". Those of "concept-pixels" are "of", a name of these
            methods, and what that has.
        metrics: which measure the maps (:data:`dff.metrics.METRICS`); None measures nothing.
        batch: how many inputs run at a time, where a method asks for many.
        progress: called with a line that says what is under way.

    Raises:
        UsageError: no such method, setting, class or metric.
        MissingExtraError: a method is Captum's, which is not installed.
        ModelError: a method cannot explain a model, or a model has no classes.
        ImageError: an image that cannot be read.
    """
    chosen = check_methods(methods)
    given, measures = check_settings(chosen, settings), check_metrics(metrics)
    if isinstance(classes, (int, np.integer)) and classes < 1:
        raise UsageError(f"classes is how many, from 1 on, or a list of classes, not {classes!r}")
    told = progress or (lambda _: None)
    models = model if isinstance(model, (list, tuple)) else [model]
    explainers = [one if isinstance(one, Explainer) else Explainer(one) for one in models]
    for explainer in explainers:
        check_model(chosen, explainer)
    by_concepts = not {CONCEPTS, CONCEPT_PIXELS}.isdisjoint(chosen)
    blocks = []
    for source in _one_by_one(images):
        for explainer in explainers:
            explanation = explainer(source, concepts=concepts, cam=by_concepts)
            photo = explanation.photos[0]
            photo.check_still("a comparison of methods")
            columns = _columns(photo, classes)
            ask = PhotoMethods(explainer, photo, [c.index for c in columns], given, batch, told)
            rows = ask.rows(chosen)
            if measures:
                rows = [replace(row, metrics=measured(ask, row, measures)) for row in rows]
            blocks.append(PhotoRows(explainer.name, explanation, tuple(columns), tuple(rows)))
    return MethodComparison(tuple(blocks), len(explainers))


def _one_by_one(images: Images) -> list[Any]:
    if isinstance(images, Tensor):
        return list(images[:, None]) if images.dim() == 4 else [images]
    return as_list(images)


def _columns(photo: Photo, classes: Classes) -> list[ClassScore]:
    """Return the classes of a photo's columns, with their scores."""
    if isinstance(classes, (int, np.integer)):
        return photo.predictions(top_k=int(classes))
    if isinstance(classes, str) or not len(classes):
        raise UsageError(f"classes is how many, or a list of classes, not {classes!r}")
    probabilities = photo.shared.meaning.probabilities(photo.logits)
    indices = dict.fromkeys(photo.target(one) for one in classes)
    return [
        ClassScore(i, photo.shared.class_name(i), float(probabilities[i]), float(photo.logits[i]))
        for i in indices
    ]

"""All methods on all photos by all models, each on the same input and the same logits."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gradcam
from dff import attributions
from dff.activations.outputs import Meaning
from dff.comparing.comparison import MethodComparison
from dff.comparing.measuring import check_metrics, measured
from dff.comparing.names import CONCEPTS, check_methods, check_model, check_settings
from dff.comparing.records import MethodRow, PhotoRows
from dff.concepts import Concepts
from dff.errors import LayerError, ModelError, UsageError
from dff.explain import Explainer
from dff.explain.inputs import Images, as_list
from dff.explain.photo import Photo, Target
from dff.explain.questions.evidence import photo_contributions
from dff.explain.shared import ClassScore
from dff.images import Preprocessing
from dff.maps import upsample

__all__ = ["Classes", "compare"]

Classes = int | Sequence[Target]
"""How many of each photo's likeliest classes, or which classes."""

TOLERANCE = 0.01
"""What contributions may miss of the logit."""

MISSED = 0.1
"""From which relative delta on a warning is due."""

Told = Callable[[str], object]


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
            may also be "black" or "white".
        metrics: which measure each method's map of the first class
            (:data:`dff.comparing.measuring.MEASURED`); None measures nothing.
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
    blocks = []
    for source in _one_by_one(images):
        for explainer in explainers:
            run = _PhotoRun(explainer, given, measures, batch, told)
            blocks.append(run.rows(source, chosen, classes, concepts))
    return MethodComparison(tuple(blocks), len(explainers))


def _one_by_one(images: Images) -> list[Any]:
    if isinstance(images, Tensor):
        return list(images[:, None]) if images.dim() == 4 else [images]
    return as_list(images)


class _Logits(nn.Module):
    """A model with its output read as logits (n, classes)."""

    def __init__(self, model: nn.Module, meaning: Meaning) -> None:
        super().__init__()
        self.model, self.meaning = model, meaning

    def forward(self, x: Tensor) -> Tensor:
        return self.meaning(self.model(x))


@dataclass(frozen=True, eq=False)
class _PhotoRun:
    """One model, to be asked about a photo by methods."""

    explainer: Explainer
    settings: Mapping[str, Mapping[str, Any]]
    metrics: Sequence[str]
    batch: int
    told: Told

    def rows(
        self, source: Any, methods: Sequence[str], classes: Classes, concepts: Concepts
    ) -> PhotoRows:
        explanation = self.explainer(source, concepts=concepts, cam=CONCEPTS in methods)
        photo = explanation.photos[0]
        photo.check_still("a comparison of methods")
        columns = _columns(photo, classes)
        indices = [score.index for score in columns]
        rows = []
        for method in methods:
            self.told(f"{photo.picture.name}: {method}")
            start = time.perf_counter()
            row = self._row(method, photo, indices)
            row = replace(row, seconds=time.perf_counter() - start)
            if self.metrics:
                self.told(f"{photo.picture.name}: {method}, metrics")
                figures = measured(photo, row.maps[0], indices[0], self.metrics, self.batch)
                row = replace(row, metrics=figures)
            rows.append(row)
        return PhotoRows(self.explainer.name, explanation, tuple(columns), tuple(rows))

    def _row(self, method: str, photo: Photo, classes: list[int]) -> MethodRow:
        try:
            if method == CONCEPTS:
                return _of_concepts(photo, classes)
            run = self._attribution if method in attributions.METHODS else self._cam
            return run(method, photo, classes)
        except (ModelError, LayerError) as error:
            raise type(error)(f"{method}: {error}") from error

    @property
    def _logits(self) -> nn.Module:
        return _Logits(self.explainer.model, self.explainer.meaning)

    def _cam(self, method: str, photo: Photo, classes: list[int]) -> MethodRow:
        options: dict[str, Any] = {"normalise": False}
        if method != "fullgrad":
            options["reshape_transform"] = self.explainer.layout
        layer = f"model.{self.explainer.layer}"
        maps = gradcam.several(
            self._logits, layer, photo.image[None], [method], torch.tensor(classes), **options
        )[method]
        return MethodRow(method, maps, 0.0)

    def _attribution(self, method: str, photo: Photo, classes: list[int]) -> MethodRow:
        ran = [0]

        def count(inputs: int) -> None:
            ran[0] += inputs
            self.told(f"{photo.picture.name}: {method}, {ran[0]} inputs")

        found = attributions.attribute(
            self._logits,
            photo.image[None],
            classes,
            method,
            layer=attributions.TargetLayer(
                f"model.{self.explainer.layer}", self.explainer.layout, photo.layer_grid
            ),
            settings=_with_baseline(self.settings.get(method, {}), self.explainer.preprocessing),
            batch=self.batch,
            progress=count,
        )
        maps = found.values.sum(1).numpy()
        if found.delta is None:
            return MethodRow(method, maps, 0.0, found.settings)
        whole = (found.values.sum((1, 2, 3)) - found.delta).abs().max().clamp_min(1e-12)
        missed = float(found.delta.abs().max() / whole)
        if missed > MISSED:
            warnings.warn(
                f"{method} misses {missed:.0%} of what the scores differ by from the baseline's: "
                f"{_remedy(method)}",
                RuntimeWarning,
                stacklevel=2,
            )
        return MethodRow(method, maps, 0.0, found.settings, tuple(found.delta.tolist()))


def _remedy(method: str) -> str:
    if method == "deeplift":
        return (
            "something in the model that is no activation module is not linear (attention, "
            "normalisation of layers, functions), and goes by its gradient"
        )
    return "raise n_steps"


def _of_concepts(photo: Photo, classes: list[int]) -> MethodRow:
    split = photo_contributions(photo, classes, tolerance=TOLERANCE)
    size = (int(photo.image.shape[-2]), int(photo.image.shape[-1]))
    maps = upsample(split.maps.sum(1), size, photo.layer_grid).numpy()
    gap = tuple(split.gap.tolist())
    return MethodRow(CONCEPTS, maps.astype(np.float32), 0.0, {}, gap, split.maps)


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


def _with_baseline(settings: Mapping[str, Any], prep: Preprocessing) -> dict[str, Any]:
    """Return settings with a baseline given as a colour normalised as photos are."""
    found = dict(settings)
    levels = {"black": 0.0, "white": 255.0}
    if isinstance(found.get("baseline"), str):
        name = found["baseline"]
        if name not in levels:
            raise UsageError(f'baseline is a number, a tensor, "black" or "white", not {name!r}')
        colour = torch.full((1, 1, 1, prep.channels), levels[name])
        found["baseline"] = prep.normalise(colour)[0].permute(2, 0, 1)
    return found

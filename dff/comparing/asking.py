"""What methods say of one photo by one model: concepts, the CAM family, attributions."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gradcam
from dff import attributions
from dff.activations.outputs import Meaning
from dff.comparing.names import CONCEPT_PIXELS, CONCEPTS, pixel_method
from dff.comparing.records import MethodRow
from dff.concepts import titles
from dff.errors import LayerError, ModelError, UsageError
from dff.explain import Explainer
from dff.explain.photo import Photo
from dff.explain.questions.evidence import photo_contributions
from dff.explain.questions.pixels import photo_encoder
from dff.images import Preprocessing
from dff.maps import upsample
from dff.scoring import Contributions

__all__ = ["PhotoMethods", "Told"]

TOLERANCE = 0.01
"""What contributions may miss of the logit."""

MISSED = 0.1
"""From which relative delta on a warning is due."""

OTHER_LAYERS = ("fullgrad", "legrad")
"""Methods of the CAM family that go by other layers than the model's target layer."""

Told = Callable[[str], object]


class _Logits(nn.Module):
    """A model with its output read as logits (n, classes)."""

    def __init__(self, model: nn.Module, meaning: Meaning) -> None:
        super().__init__()
        self.model, self.meaning = model, meaning

    def forward(self, x: Tensor) -> Tensor:
        return self.meaning(self.model(x))


@dataclass(frozen=True, eq=False)
class PhotoMethods:
    """A photo and its classes, for methods to be asked about.

    Attributes:
        explainer: of the model.
        photo: in concepts of its own.
        classes: the columns.
        settings: of each method that was given any.
        batch: how many inputs run at a time.
        told: called with a line that says what is under way.
    """

    explainer: Explainer
    photo: Photo
    classes: list[int]
    settings: Mapping[str, Mapping[str, Any]]
    batch: int
    told: Told

    def rows(self, methods: Sequence[str]) -> list[MethodRow]:
        """Return what each method says; those of the CAM family that can share one pass.

        Raises:
            ModelError, LayerError: a method cannot explain the model; the message names it.
        """
        shared = [name for name in methods if self._shares_pass(name)]
        found: dict[str, MethodRow] = {}
        for name in methods:
            if name not in found:
                rows = self._cams(shared) if name in shared else [self._alone(name)]
                found.update({row.method: row for row in rows})
        return [found[name] for name in methods]

    def again(self, method: str, images: Tensor, classes: Sequence[int]) -> np.ndarray:
        """Ask a method about other inputs (n, channels, height, width) of the photo's size.

        Concepts stay those of the photo.

        Returns:
            (n, height, width), of a class each.
        """
        images = images.to(self.photo.image)
        asked = list(zip(images, classes, strict=True))
        if method == CONCEPTS:
            return np.concatenate([self._concepts_of(x, target) for x, target in asked])
        if method in gradcam.METHODS:
            maps = [self._cam_maps([method], x[None], [target])[method] for x, target in asked]
            return np.concatenate(maps)
        return (
            self._attributed(method, images, self._targets(method, classes)).values.sum(1).numpy()
        )

    def _alone(self, method: str) -> MethodRow:
        start = time.perf_counter()
        self._tell(method)
        try:
            row = self._row(method)
        except (ModelError, LayerError) as error:
            raise type(error)(f"{method}: {error}") from error
        return replace(row, seconds=time.perf_counter() - start)

    def _row(self, method: str) -> MethodRow:
        if method == CONCEPTS:
            split = self._split
            gap = tuple(split.gap.tolist())
            return MethodRow(CONCEPTS, self._on_input(split), 0.0, {}, gap, split.maps)
        if method in gradcam.METHODS:
            maps = self._cam_maps([method], self.photo.image[None], self.classes)[method]
            return MethodRow(method, maps, 0.0)
        return self._attribution(method)

    def _tell(self, what: str) -> None:
        self.told(f"{self.photo.picture.name}: {what}")

    @property
    def _logits(self) -> nn.Module:
        return _Logits(self.explainer.model, self.explainer.meaning)

    # The CAM family.

    def _shares_pass(self, name: str) -> bool:
        return name in gradcam.METHODS and gradcam.METHODS[name].shares_pass

    def _cams(self, methods: Sequence[str]) -> list[MethodRow]:
        """Return the rows of methods that share a pass, which counts as the first one's time."""
        begun: list[float] = []

        def begin(name: str) -> None:
            begun.append(time.perf_counter())
            self._tell(name)

        try:
            maps = self._cam_maps(methods, self.photo.image[None], self.classes, begin)
        except (ModelError, LayerError) as error:
            raise type(error)(f"{methods[max(0, len(begun) - 1)]}: {error}") from error
        spans = pairwise([*begun, time.perf_counter()])
        return [
            MethodRow(name, maps[name], after - before)
            for name, (before, after) in zip(methods, spans, strict=True)
        ]

    def _cam_maps(
        self, methods: Sequence[str], x: Tensor, classes: Sequence[int], begin: Told | None = None
    ) -> dict[str, np.ndarray]:
        """Return the maps (classes, height, width) of one input, where the layer's cells lie."""
        options: dict[str, Any] = {"normalise": False}
        if "fullgrad" not in methods:
            options["reshape_transform"] = self.explainer.layout
        if not set(methods) & set(OTHER_LAYERS):
            options["grid"] = self.photo.layer_grid
        layer, targets = f"model.{self.explainer.layer}", torch.tensor(list(classes))
        return gradcam.several(self._logits, layer, x, methods, targets, progress=begin, **options)

    # Concepts.

    @cached_property
    def _split(self) -> Contributions:
        return photo_contributions(self.photo, self.classes, tolerance=TOLERANCE)

    @cached_property
    def _strongest(self) -> dict[int, int]:
        """The concept that adds most to each class."""
        strongest = self._split.values.argmax(1).tolist()
        return dict(zip(self.classes, strongest, strict=True))

    def _on_input(self, split: Contributions) -> np.ndarray:
        """Return what all concepts together add, (classes, height, width) float32."""
        size = (int(self.photo.image.shape[-2]), int(self.photo.image.shape[-1]))
        return upsample(split.maps.sum(1), size, self.photo.layer_grid).numpy().astype(np.float32)

    def _concepts_of(self, image: Tensor, target: int) -> np.ndarray:
        """Return the map (1, height, width) of another input, in the photo's concepts."""
        other = self.explainer(image, bank=self.photo.bank).photos[0]
        return self._on_input(photo_contributions(other, [target], tolerance=TOLERANCE))

    # Attributions.

    def _targets(self, method: str, classes: Sequence[int]) -> list[int]:
        """Return what is attributed: logits of classes, or the concept that adds most to each."""
        if method == CONCEPT_PIXELS:
            return [self._strongest[target] for target in classes]
        return list(classes)

    def _attributed(self, method: str, x: Tensor, targets: list[int]) -> attributions.Attribution:
        name, given, ran = method, self.settings.get(method, {}), 0
        forward = self._logits
        if method == CONCEPT_PIXELS:
            name, given = pixel_method(given)
            forward = photo_encoder(self.photo)

        def count(inputs: int) -> None:
            nonlocal ran
            ran += inputs
            self._tell(f"{method}, {ran} inputs")

        layer = attributions.TargetLayer(
            f"model.{self.explainer.layer}", self.explainer.layout, self.photo.layer_grid
        )
        settings = _with_baseline(given, self.explainer.preprocessing)
        return attributions.attribute(
            forward, x, targets, name,
            layer=layer, settings=settings, batch=self.batch, progress=count,
        )  # fmt: skip

    def _attribution(self, method: str) -> MethodRow:
        targets = self._targets(method, self.classes)
        once = list(dict.fromkeys(targets))  # classes may share a concept
        found = self._attributed(method, self.photo.image[None], once)
        places = [once.index(target) for target in targets]
        row = MethodRow(method, found.values.sum(1).numpy()[places], 0.0, found.settings)
        if method == CONCEPT_PIXELS:
            names = titles(self.photo.bank.names)
            captions = tuple(names[target] for target in targets)
            row = replace(row, settings={**found.settings, "of": found.method}, captions=captions)
        if found.delta is None:
            return row
        whole = (found.values.sum((1, 2, 3)) - found.delta).abs().max().clamp_min(1e-12)
        missed = float(found.delta.abs().max() / whole)
        if missed > MISSED:
            warnings.warn(
                f"{method} misses {missed:.0%} of what the scores differ by from the baseline's: "
                f"{_remedy(found.method)}",
                RuntimeWarning,
                stacklevel=2,
            )
        return replace(row, delta=tuple(found.delta[places].tolist()))


def _remedy(method: str) -> str:
    if method == "deeplift":
        return (
            "something in the model that is no activation module is not linear (attention, "
            "normalisation of layers, functions), and goes by its gradient"
        )
    return "raise n_steps"


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

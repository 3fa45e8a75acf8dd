"""The pictures of a photo's concepts: overlay, legend, panel."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from dff import rendering
from dff.concepts import titles
from dff.errors import UsageError
from dff.explain.photo import Photo, Target
from dff.explain.questions.evidence import Evidence, photo_contributions
from dff.explain.questions.labels import Label, photo_labels
from dff.images import Picture
from dff.labels import NO_CLASS, short_name
from dff.maps import fitted, sharpened, within
from dff.rendering import BarColumn, Legend, LegendEntry, Line, paled

__all__ = ["Drawing", "by_name", "file_name"]

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_SIDE = 2048
"""Pictures are drawn at the photo's own size, up to this many pixels on the long side."""

SMALLEST_SIDE, LARGE_ENOUGH = 120, 240
"""A photo with a shorter side than the first, beside a legend, is drawn enlarged to the second."""

COARSE = 128
"""The longer side of the maps that crops are found on."""

BEHIND = 0.6
"""Opacity of a concept of no class, as a share of the others'."""

MOST_CLASSES, LEAST_PROBABILITY = 3, 0.01
"""Bars are for so many of the photo's likeliest classes, if they are so likely."""

TOLERANCE, LEAST_GAP = 0.03, 0.002
"""What contributions may miss of the logit in a picture, and from where on it is said there."""

ABOUT = {
    "contributions": "adds to the logit of",
    "ablation": "taken out, lowers the logit of",
    "blur": "blurred, lowers the logit of",
    "sobol": "share of variance of",
    "gradient": "gradient x coefficient, of",
}


def by_name(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method without positional arguments say what it takes, when it is given one."""
    options = [f"{name}=" for name in inspect.signature(method).parameters if name != "self"]
    name = method.__name__

    @functools.wraps(method)
    def call(*args: P.args, **options_given: P.kwargs) -> R:
        if len(args) > 1:
            raise UsageError(
                f"{name}() takes its options by name ({', '.join(options)}), not {args[1]!r:.40}; "
                f"of several photos, photo i is result[i].{name}()"
            )
        return method(*args, **options_given)

    return call


class Drawing:
    """A photo's concepts, or those of a clip whose frames are set in rows, to be drawn.

    Args:
        photos: one, or the frames of a clip; labels, bars and Grad-CAM are those of the first.
        target: the class of bars and Grad-CAM; None is the photo's likeliest ones.
        top_k: most labels a concept.
        image_weight: as of :func:`dff.rendering.overlay`.
        smooth: draw the maps as they are, not fitted to the photo's edges
            (:func:`dff.maps.sharpened`).
        outline: draw lines around the concepts.
        evidence: what else was asked about the photo, each a column of bars; contributions among
            it stand in place of those of the likeliest classes.

    Raises:
        UsageError: no such class.
        ModelError: a target, of a model without a head.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        *,
        target: Target | None = None,
        top_k: int = 3,
        image_weight: float = 0.5,
        smooth: bool = False,
        outline: bool = False,
        evidence: Sequence[Evidence] = (),
    ) -> None:
        self.photos, self.photo = photos, photos[0]
        self.top_k, self.evidence = top_k, evidence
        self.image_weight, self.smooth, self.outline = image_weight, smooth, outline
        self.asked = None if target is None else self.photo.target(target)

    def overlay(self, *, with_legend: bool = True) -> Image.Image:
        """Draw the concepts over the photo, with a legend at its right."""
        if not with_legend:
            return Image.fromarray(self._film(_reduced))
        return rendering.panel([("", self._painted)], legend=self._legend)

    def panel(self) -> Image.Image:
        """Draw photo | concepts | Grad-CAM side by side, with titles and the legend.

        Grad-CAM is left out where the concepts have no scores, or the model no gradients.
        """
        photos = self.photos
        pictures = [
            (file_name(photos), rendering.film([_reduced(frame.picture) for frame in photos])),
            (f"{len(self.photo.bank)} concepts", self._painted),
        ]
        if self.differentiable:
            target = self.photo.target(self.asked)
            cells = self.photo.cam_cells(target)
            heatmap = rendering.film([_heated(frame, cells) for frame in photos])
            pictures.append((f"Grad-CAM: {self.class_title(target)}", heatmap))
        return rendering.panel(pictures, legend=self._legend)

    def entries(self) -> list[LegendEntry]:
        """Return a legend entry for each concept: crop, number or name, share, labels."""
        bank = self.photo.bank
        shares = self.photo.shares.tolist()
        told = zip(titles(bank.names), shares, self._crops(), strict=True)
        return [
            LegendEntry(self._colors[k], name, share, self._lines(k), crop, k + 1)
            for k, (name, share, crop) in enumerate(told)
        ]

    def forget(self) -> None:
        """Free what several pictures share; it is drawn anew when it is needed again."""
        for name in ("_painted", "_legend"):
            self.__dict__.pop(name, None)

    @functools.cached_property
    def _legend(self) -> Legend:
        scored = not self.photo.shared.unscored
        heads = [("concept", "share of activations"), ("speaks for", "confidence")]
        return Legend(self.entries(), heads if scored else heads[:1], self.columns())

    @functools.cached_property
    def _painted(self) -> np.ndarray:
        """The photo under its concepts, numbered, or the frames of a clip in rows."""
        return self._film(_enlarged)

    def _film(self, sized: Callable[[Picture], np.ndarray]) -> np.ndarray:
        return rendering.film(
            [self._overlaid(photo, sized(photo.picture)) for photo in self.photos]
        )

    def _overlaid(self, photo: Photo, pixels: np.ndarray) -> np.ndarray:
        size = (pixels.shape[0], pixels.shape[1])
        maps = photo.heatmaps(size)
        if not self.smooth:
            maps = sharpened(maps, pixels, radius=max(1, round(size[0] / photo.grid.rows)))
        painted = rendering.overlay(
            pixels,
            maps,
            colors=self._colors,
            image_weight=self.image_weight,
            opacities=[BEHIND if behind else 1.0 for behind in self._background],
            outline=self.outline,
        )
        if len(self.photos) > 1:  # frames in rows are too small for numbers
            return painted
        return rendering.number_concepts(painted, maps, colors=self._colors)

    @functools.cached_property
    def labels(self) -> list[list[Label]]:
        """What each concept speaks for in the photo."""
        return photo_labels(self.photo, top_k=self.top_k)

    @functools.cached_property
    def _background(self) -> np.ndarray:
        """(k,) bool: the concepts of no class, which are paler; but not if all are."""
        empty = np.array([not labels for labels in self.labels])
        return empty & (not self.photo.shared.unscored) & (not empty.all())

    @functools.cached_property
    def _colors(self) -> np.ndarray:
        colors = self.photo.bank.colors
        return np.where(self._background[:, None], paled(colors), colors)

    @functools.cached_property
    def differentiable(self) -> bool:
        """Whether the concepts have scores and these gradients."""
        return not (self.photo.shared.unscored or self.photo.undifferentiable)

    def class_title(self, index: int) -> str:
        """Return the name of a class without its synonyms."""
        return short_name(index, self.photo.shared.class_names)

    def _heading(self, target: str) -> str:
        """Return the name of a class, or of a difference of two, without synonyms."""
        names = self.photo.shared.class_names or ()
        parts = target.split(" - ")
        return " - ".join(self.class_title(names.index(p)) if p in names else p for p in parts)

    def _lines(self, k: int) -> list[Line]:
        if self.photo.shared.unscored:
            return []
        said: list[Line] = [
            (self.class_title(label.index), label.confidence) for label in self.labels[k]
        ]
        return said or [NO_CLASS]

    def _crops(self) -> list[np.ndarray]:
        """Return what each concept looks like, in the frame where it is the strongest."""
        sizes = [within(photo.picture.pixels.shape[:2], COARSE) for photo in self.photos]
        maps = [photo.heatmaps(size) for photo, size in zip(self.photos, sizes, strict=True)]
        best = np.stack([of_frame.max((1, 2)) for of_frame in maps]).argmax(0)
        return [
            rendering.crop_around(self.photos[at].picture.pixels, maps[at][k])
            for k, at in enumerate(best.tolist())
        ]

    def columns(self) -> list[BarColumn]:
        """Return what concepts add to the target or the likeliest classes, and what was asked."""
        columns = [
            _column(one, t, self._heading(name))
            for one in self.evidence
            for t, name in enumerate(one.targets)
        ]
        if self.differentiable and all(one.kind != "contributions" for one in self.evidence):
            classes = self.likeliest() if self.asked is None else [self.asked]
            split = photo_contributions(self.photo, classes, tolerance=TOLERANCE)
            added = Evidence("contributions", split.targets, split.values, split)
            probabilities = self.photo.shared.meaning.probabilities(self.photo.logits)
            columns[:0] = [
                replace(
                    _column(added, t, self.class_title(index)),
                    notes=[("probability", f"{float(probabilities[index]):.2f}")],
                )
                for t, index in enumerate(classes)
            ]
        return columns

    def likeliest(self) -> list[int]:
        """Return the classes that bars are for: the likeliest, and others that are likely."""
        first, *others = self.photo.predictions(top_k=MOST_CLASSES)
        return [first.index, *(c.index for c in others if c.probability >= LEAST_PROBABILITY)]


def file_name(photos: Sequence[Photo]) -> str:
    """Return the name of a photo, or of the clip that these are the frames of."""
    name = photos[0].picture.name
    return name if len(photos) == 1 else name.rpartition("-")[0] or name


def _column(evidence: Evidence, t: int, heading: str) -> BarColumn:
    """Return the bars of one target of what was asked about a photo."""
    about, values = ABOUT[evidence.kind], evidence.values[t].tolist()
    split = evidence.details
    if split is None:
        return BarColumn(heading, values, about)
    rest, gap, logit = (float(part[t]) for part in (split.rest, split.gap, split.logit))
    addends = [("what no concept explains", rest)]
    if abs(gap) >= LEAST_GAP * max(abs(logit), abs(logit - rest)):
        addends.append(("missed by the sum", gap))
    name = "difference of the logits" if " - " in evidence.targets[t] else "logit of the class"
    return BarColumn(heading, values, about, addends, (name, logit))


def _heated(photo: Photo, cells: Tensor) -> np.ndarray:
    pixels = _reduced(photo.picture)
    cam = photo.cam_on_pixels(cells, (pixels.shape[0], pixels.shape[1]))
    return rendering.heatmap_overlay(pixels, cam)


def _reduced(picture: Picture) -> np.ndarray:
    """Return the photo at the size it is drawn at."""
    longest = max(picture.height, picture.width)
    if longest <= LONGEST_SIDE:
        return picture.pixels
    return fitted(picture.pixels, within((picture.height, picture.width), LONGEST_SIDE))


def _enlarged(picture: Picture) -> np.ndarray:
    """Return the photo at the size it is drawn at, so that a small one has room for numbers."""
    pixels = _reduced(picture)
    height, width = pixels.shape[:2]
    if min(height, width) >= SMALLEST_SIDE:
        return pixels
    factor = min(math.ceil(LARGE_ENOUGH / min(height, width)), LONGEST_SIDE // max(height, width))
    return rendering.fit(pixels, height * factor, width * factor)

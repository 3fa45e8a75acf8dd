"""What one call found, and everything that can be made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dff.activations.outputs import Meaning
from dff.attributions import Attribution
from dff.concepts import ConceptBank
from dff.errors import UsageError
from dff.explain import saving
from dff.explain.drawing import Drawing, by_name, file_name
from dff.explain.pages import Viewable
from dff.explain.photo import ALL_OF_IT, Photo, Target, clips_of
from dff.explain.questions.check import Answer, Check, check_photo
from dff.explain.questions.comparison import By, Comparison, compare
from dff.explain.questions.evidence import (
    Evidence,
    Targets,
    photo_contributions,
    photo_evidence,
    photo_module,
)
from dff.explain.questions.labels import Label, photo_labels
from dff.explain.questions.pixels import METHOD, ConceptLike, Settings, photo_pixels
from dff.explain.shared import ClassScore, SharedConcepts
from dff.maps import MaskOptions
from dff.rendering import LegendEntry
from dff.scoring import ConceptModule, Contributions

__all__ = ["Explanation"]


@dataclass(frozen=True, eq=False)
class Explanation(Viewable):
    """The concepts of one photo, or of several that share them.

    Of a model of clips the photos are the frames, one after the other (:attr:`clips`).

    ``result[i]`` is the explanation of photo i alone, and iterating goes over all. What is asked
    about a photo (`maps`, `cam`, `contributions`, `overlay`, …) is asked about the first one.
    What asks for classes raises a UsageError where there is no such class, a LayerError where the
    layer's grid has no say in the output, and a ModelError where the model has no head.

    Attributes:
        photos: (n,) the record of each photo: picture, coefficients, grid, activations.
    """

    photos: tuple[Photo, ...]

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos)

    def __getitem__(self, index: int) -> Explanation:
        """Return the explanation of one photo, in the shared concepts.

        Raises:
            UsageError: there is no such photo.
        """
        count = len(self.photos)
        if not isinstance(index, (int, np.integer)) or not -count <= index < count:
            there = f"there {'is' if count == 1 else 'are'} {count}, and they count from 0"
            raise UsageError(f"there is no photo {index!r}: {there}")
        return Explanation((self.photos[index],))

    def __iter__(self) -> Iterator[Explanation]:
        return (Explanation((photo,)) for photo in self.photos)

    @property
    def name(self) -> str:
        """The name of the first photo, or of the clip whose frames these are."""
        return file_name(clips_of(self.photos)[0])

    @property
    def clips(self) -> list[Explanation]:
        """The explanation of each photo alone, and of each clip with all its frames."""
        return [Explanation(clip) for clip in clips_of(self.photos)]

    def __repr__(self) -> str:
        return (
            f"Explanation({len(self)} photo{'s' * (len(self) != 1)}, {len(self.bank)} concepts of "
            f"{self.bank.model} at {self.bank.layer!r}; output: {self.meaning})"
        )

    # The concepts, which the photos share.

    @property
    def shared(self) -> SharedConcepts:
        """The concepts and what each says about the classes."""
        return self.photos[0].shared

    @property
    def bank(self) -> ConceptBank:
        """The concepts: embeddings, full presence, shares, names, colours."""
        return self.shared.bank

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None."""
        return self.shared.class_names

    @property
    def unscored(self) -> str | None:
        """Why the concepts have no scores; None where they have."""
        return self.shared.unscored

    @property
    def meaning(self) -> Meaning:
        """What the model's output is, and how scores are read from it."""
        return self.shared.meaning

    @property
    def concept_logits(self) -> Tensor:
        """(k, classes) of each concept at full presence."""
        return self.shared.logits

    @property
    def scores(self) -> Tensor:
        """(k, classes): each concept's class probabilities at full presence.

        Rows add to 1, but where classes do not exclude each other (:attr:`meaning`).
        """
        self.shared.check_scored()
        return self.meaning.probabilities(self.concept_logits)

    def top_classes(self, concept: int, *, top_k: int = 3) -> list[ClassScore]:
        """Return the classes that a concept (from 0) at full presence speaks for, best first.

        Empty where the concepts have no scores.
        """
        return self.shared.top_classes(concept, top_k=top_k)

    def labels(self, *, top_k: int = 3) -> list[list[Label]]:
        """Return for each concept the classes that it speaks for in the photo, the surest first.

        By :mod:`dff.scoring.labels`; empty where a concept speaks for none: it is background, or
        nothing clear, or the concepts have no scores.
        """
        return photo_labels(self.photos[0], top_k=top_k)

    def legend_entries(self, *, top_k: int = 3) -> list[LegendEntry]:
        """Return each concept's crop, name, share, and labels in the first photo."""
        return Drawing(clips_of(self.photos)[0], top_k=top_k).entries()

    def named(self, names: dict[int, str]) -> Explanation:
        """Return it with names for some concepts, from 0 (:meth:`dff.ConceptBank.renamed`)."""
        shared = replace(self.shared, bank=self.bank.renamed(names))
        return Explanation(tuple(replace(photo, shared=shared) for photo in self.photos))

    @property
    def logits(self) -> Tensor:
        """(n, classes) of the photos; (n, 0) of a model without a head."""
        return torch.stack([photo.logits for photo in self.photos])

    @property
    def probabilities(self) -> Tensor:
        """(n, classes): the photos' class probabilities."""
        return self.meaning.probabilities(self.logits)

    def as_dict(self, *, top_k: int = 3, settings: saving.Settings = None) -> dict[str, Any]:
        """Return all scores as plain data (:func:`dff.explain.saving.as_dict`)."""
        return saving.as_dict(self.photos, top_k=top_k, settings=settings)

    def save(
        self,
        folder: str | Path,
        *,
        top_k: int = 3,
        target: Target | None = None,
        formats: Sequence[str] | None = None,
        smooth: bool = False,
        outline: bool = False,
        evidence: Sequence[Sequence[Answer]] = (),
        settings: saving.Settings = None,
    ) -> list[Path]:
        """Write pictures, scores, arrays and bank (:func:`dff.explain.saving.save`)."""
        return saving.save(
            self.photos, folder, top_k=top_k, target=target, formats=formats, smooth=smooth,
            outline=outline, evidence=evidence, settings=settings,
        )  # fmt: skip

    def compare(
        self, other: Explanation, *, by: By | None = None, threshold: float | None = None
    ) -> Comparison:
        """Match the concepts of another (:func:`dff.explain.questions.comparison.compare`)."""
        photos: Any = getattr(other, "photos", other)
        return compare(self.photos, photos, by=by, threshold=threshold)

    def pixels(
        self, concept: ConceptLike, method: str = METHOD, *, settings: Settings = None
    ) -> Attribution:
        """Say which pixels of each photo make a concept (by index, from 0, or name), and how much;
        of one photo also several concepts, a row each.

        Attributes the concept's mean coefficient (:class:`dff.scoring.ConceptEncoder`) to the input
        by a method of :data:`dff.attributions.METHODS` and its settings.
        """
        return photo_pixels(self.photos, concept, method, settings)

    # One photo: the first.

    def target(self, target: Target | None = None) -> int:
        """Return a class index for an index, a name, or None (the photo's likeliest class)."""
        return self.photos[0].target(target)

    def predictions(self, *, top_k: int = 5) -> list[ClassScore]:
        """Return the photo's likeliest classes, best first; none of a model without a head."""
        return self.photos[0].predictions(top_k=top_k)

    def maps(self, *, level: str = "part") -> np.ndarray:
        """Return the presence (nodes, rows, cols) float32 in [0, 1] at the photo's cells.

        1 is full presence in the data the concepts were fitted on: maps compare across photos.

        Args:
            level: "part" is the concepts; "object" the unions of those that belong together after
                them (``bank.nodes(level)`` names the members).
        """
        return self.photos[0].maps(level=level)

    def heatmaps(self, size: tuple[int, int] | None = None, *, level: str = "part") -> np.ndarray:
        """Return the maps (nodes, height, width) on the photo's own pixels, or at another size.

        Interpolated from the cells, not fitted to the photo's edges as in pictures and masks.
        """
        return self.photos[0].heatmaps(size, level=level)

    def masks(self, options: MaskOptions = ALL_OF_IT, *, level: str = "part") -> np.ndarray:
        """Return where each node is, (nodes, height, width) bool, on the photo's own pixels.

        Maps fitted to the photo's edges, above the threshold of each; empty where a concept is
        absent. A dataset's masks are made the same way (:func:`dff.maps.masks_of`).

        Args:
            options: how maps become masks; all connected components are kept by default.
            level: as in :meth:`maps`.
        """
        return self.photos[0].masks(options, level=level)

    def cam(self, target: Target | None = None) -> np.ndarray:
        """Return Grad-CAM (height, width) float32 in [0, 1], stretched to its own range.

        Args:
            target: class index or name; None is the photo's likeliest class.
        """
        return self.photos[0].cam(target)

    def contributions(
        self, target: Targets = None, *, versus: Target | None = None, tolerance: float = 0.01
    ) -> Contributions:
        """Split the photo's logits into one number a concept, and the rest.

        Args:
            target: a class by index or name, or several; None is the photo's likeliest.
            versus: a class whose logit is subtracted: what speaks for the one over the other.
            tolerance: the relative gap to stay below; what is left is reported.
        """
        return photo_contributions(self.photos[0], target, versus=versus, tolerance=tolerance)

    def evidence(
        self, kind: str = "contributions", target: Targets = None, *, versus: Target | None = None
    ) -> Evidence:
        """Return what each concept of the photo says about classes, by one way of asking.

        Args:
            kind: a key of :data:`dff.explain.questions.evidence.EVIDENCE`, where each is told.
            target: a class by index or name, or several; None is the photo's likeliest.
            versus: a class whose logit is subtracted.
        """
        return photo_evidence(self.photos[0], kind, target, versus=versus)

    def check(self, target: Target | None = None, *, seed: int = 0) -> Check:
        """Measure how faithful the photo's concepts are to the model (:class:`Check`).

        Args:
            target: class index or name; None is the photo's likeliest class.
            seed: of random orders and of the randomised model.
        """
        return check_photo(self.photos[0], target, seed=seed)

    def concept_module(self) -> ConceptModule:
        """Return the model from coefficients to logits, with what the concepts leave unexplained:
        at ``photos[0].layer_coefficients[None]`` the logits are the model's own."""
        return photo_module(self.photos[0])

    @by_name
    def overlay(
        self,
        *,
        top_k: int = 3,
        with_legend: bool = True,
        image_weight: float = 0.5,
        smooth: bool = False,
        outline: bool = False,
    ) -> Image.Image:
        """Draw the concepts over the photo, with a legend at its right.

        Maps follow the photo's edges, but with `smooth`; `outline` draws lines around concepts.
        """
        drawing = Drawing(
            clips_of(self.photos)[0], top_k=top_k, image_weight=image_weight, smooth=smooth,
            outline=outline,
        )  # fmt: skip
        return drawing.overlay(with_legend=with_legend)

    @by_name
    def panel(
        self,
        *,
        target: Target | None = None,
        top_k: int = 3,
        smooth: bool = False,
        outline: bool = False,
        evidence: Sequence[Evidence] = (),
    ) -> Image.Image:
        """Draw photo | concepts | Grad-CAM, with titles and legend (options: :class:`Drawing`)."""
        return Drawing(
            clips_of(self.photos)[0], target=target, top_k=top_k, smooth=smooth, outline=outline,
            evidence=evidence,
        ).panel()  # fmt: skip

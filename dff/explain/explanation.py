"""What one call found, and everything that can be made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dff.bank import ConceptBank
from dff.errors import LayerError, UsageError
from dff.explain.passes import Tape
from dff.heatmaps import Grid, presence, rescale, upsample
from dff.images import Picture
from dff.labels import class_index, class_name
from dff.rendering import LegendEntry, heatmap_overlay, overlay, panel
from dff.scoring import ConceptModule, Contributions, Tail
from gradcam import grad_cam

if TYPE_CHECKING:
    from dff.explain.checks import Check
    from dff.explain.evidence import Evidence

__all__ = ["ClassScore", "Explanation"]

Target = int | str

LONGEST_SIDE = 2048
"""Pictures are drawn at the photo's own size, up to this many pixels on the long side."""


@dataclass(frozen=True)
class ClassScore:
    """A class, its probability in [0, 1] and its logit."""

    index: int
    name: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The concepts of one photo, or of several that share them.

    Attributes:
        pictures: (n,) the photos as they were read.
        bank: the concepts: embeddings, full presence, shares, names, colours.
        coefficients: for each photo W as (k, rows, cols).
        grids: for each photo, where its cells lie in the model's input.
        logits: (n, classes) of the photos.
        concept_logits: (k, classes) of each concept at full presence.
        class_names: names of the classes, or None.
        tapes: what Grad-CAM needs of the pass.
        places: for each photo its (tape, item).
        tails: for each tape the rest of the model.
        unscored: why the concepts have no scores; None where they have.
    """

    pictures: tuple[Picture, ...]
    bank: ConceptBank
    coefficients: tuple[Tensor, ...]
    grids: tuple[Grid, ...]
    logits: Tensor
    concept_logits: Tensor
    class_names: tuple[str, ...] | None
    tapes: tuple[Tape, ...] = field(repr=False)
    places: tuple[tuple[int, int], ...] = field(repr=False)
    tails: tuple[Tail, ...] = field(repr=False, default=())
    unscored: str | None = None

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> Explanation:
        """Return the explanation of one photo, in the shared concepts."""
        at = range(len(self))[index]
        return replace(
            self,
            pictures=self.pictures[at : at + 1],
            coefficients=self.coefficients[at : at + 1],
            grids=self.grids[at : at + 1],
            logits=self.logits[at : at + 1],
            places=self.places[at : at + 1],
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"Explanation({len(self)} photo{'s' * (len(self) != 1)}, {len(self.bank)} concepts of "
            f"{self.bank.model} at {self.bank.layer!r})"
        )

    @property
    def scores(self) -> Tensor:
        """(k, classes): each concept's class probabilities at full presence, rows adding to 1.

        Raises:
            LayerError: the layer's grid has no say in the output.
        """
        self.check_scored()
        return self.concept_logits.softmax(-1)

    @property
    def probabilities(self) -> Tensor:
        """(n, classes): the photos' class probabilities."""
        return self.logits.softmax(-1)

    def maps(self, index: int = 0) -> np.ndarray:
        """Return the concepts' presence (k, rows, cols) float32 in [0, 1] at the cells of a photo.

        1 is full presence in the data the concepts were fitted on, so maps compare across
        photos: where a concept is absent, its map is near 0.
        """
        return presence(self.coefficients[index], self.bank.scale.cpu()).numpy()

    def heatmaps(self, index: int = 0, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the maps (k, height, width) on the photo's own pixels, or at another size."""
        picture = self.pictures[index]
        size = size or (picture.height, picture.width)
        return upsample(self.maps(index), size, self.grids[index])

    def predictions(self, index: int = 0, *, top_k: int = 5) -> list[ClassScore]:
        """Return the likeliest classes of a photo, best first."""
        return self._best(self.logits[index], top_k)

    def top_classes(self, concept: int, *, top_k: int = 3) -> list[ClassScore]:
        """Return the classes that a concept at full presence speaks for, best first.

        Empty where the layer's grid has no say in the output.
        """
        return [] if self.unscored else self._best(self.concept_logits[concept], top_k)

    def check_scored(self) -> None:
        """Raise a LayerError with the reason if the concepts have no scores."""
        if self.unscored:
            raise LayerError(self.unscored)

    def _best(self, logits: Tensor, top_k: int) -> list[ClassScore]:
        probabilities = logits.softmax(-1)
        values, indices = probabilities.topk(min(top_k, len(logits)))
        return [
            ClassScore(i, class_name(i, self.class_names), value, float(logits[i]))
            for value, i in zip(values.tolist(), indices.tolist(), strict=True)
        ]

    def cam(self, target: int | str | None = None, *, index: int = 0) -> np.ndarray:
        """Return Grad-CAM for a class on the photo's pixels, from the same pass.

        Args:
            target: class index or name; None is the photo's likeliest class.
            index: which photo.

        Returns:
            float32 (height, width) in [0, 1], stretched to its own range.

        Raises:
            UsageError: no such class, or explained with ``cam=False``.
            LayerError: the layer's grid has no say in the output.
        """
        self.check_scored()
        picture = self.pictures[index]
        return self._cam(self.target(target, index), index, (picture.height, picture.width))

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _cam(self, wanted: int, index: int, size: tuple[int, int]) -> np.ndarray:
        group, item = self.places[index]
        tape = self.tapes[group]
        if not tape.logits.requires_grad:
            raise UsageError("Grad-CAM was not kept; explain with cam=True")
        (gradient,) = torch.autograd.grad(tape.logits[item, wanted], tape.maps, retain_graph=True)
        one = slice(item, item + 1)
        cells = grad_cam(tape.maps[one].detach().float(), gradient[one].float())[0].cpu().numpy()
        return rescale(upsample(cells, size, self.grids[index]))

    @torch.inference_mode(False)
    def contributions(
        self,
        target: Target | Sequence[Target] | None = None,
        index: int = 0,
        *,
        versus: Target | None = None,
        tolerance: float = 0.01,
    ) -> Contributions:
        """Split a photo's logits into one number a concept, and the rest.

        Exact where the rest of the model is linear in the activations; elsewhere by integrated
        gradients, with steps added until the relative gap is below `tolerance`.

        Args:
            target: a class by index or name, or several; None is the photo's likeliest.
            index: which photo.
            versus: a class whose logit is subtracted: what speaks for the one over the other.
            tolerance: the relative gap to stay below; what is left is reported.

        Raises:
            UsageError: no such class.
            LayerError: the layer's grid has no say in the output.
        """
        from dff.explain.evidence import contributions

        return contributions(self, target, index, versus=versus, tolerance=tolerance)

    @torch.inference_mode(False)
    def evidence(
        self,
        kind: str = "contributions",
        target: Target | Sequence[Target] | None = None,
        index: int = 0,
        *,
        versus: Target | None = None,
    ) -> Evidence:
        """Return what each concept of a photo says about classes, by one way of asking.

        Args:
            kind: "contributions" (:meth:`contributions`), "ablation" (the logit falls by so much
                when the concept is taken out of the activations), "blur" (when its region of
                the picture is blurred), "sobol" (total Sobol indices, as in CRAFT), or
                "gradient" (gradient x coefficient).
            target: a class by index or name, or several; None is the photo's likeliest.
            index: which photo.
            versus: a class whose logit is subtracted.

        Raises:
            UsageError: no such evidence or class.
            LayerError: the layer's grid has no say in the output.
        """
        from dff.explain.evidence import evidence

        return evidence(self, kind, target, index, versus=versus)

    @torch.inference_mode(False)
    def check(self, target: Target | None = None, index: int = 0, *, seed: int = 0) -> Check:
        """Measure how faithful a photo's concepts are to the model.

        Insertion and deletion curves of concepts and pixels, the agreement of the model on W·H
        and on A, and whether the concepts of a randomised model differ.

        Args:
            target: class index or name; None is the photo's likeliest class.
            index: which photo.
            seed: of random orders and of the randomised model.

        Raises:
            UsageError: no such class.
            LayerError: the layer's grid has no say in the output.
        """
        from dff.explain.checks import check

        return check(self, target, index, seed=seed)

    @torch.inference_mode(False)
    def concept_module(self, index: int = 0) -> ConceptModule:
        """Return the model as seen from a photo's concepts: coefficients in, logits out.

        Its logits at ``coefficients[index][None]`` are the model's own: what the concepts leave
        unexplained is added.
        """
        from dff.explain.evidence import concept_module

        return concept_module(self, index)

    def target(self, target: int | str | None = None, index: int = 0) -> int:
        """Return a class index for an index, a name, or None (the photo's likeliest class)."""
        if target is None:
            return int(self.logits[index].argmax())
        return class_index(target, self.class_names, self.logits.shape[1])

    def legend_entries(self, *, top_k: int = 3) -> list[LegendEntry]:
        """Return a legend entry for each concept: swatch, name, share, and its top classes."""
        return [
            LegendEntry(
                color=tuple(int(v) for v in color),
                title=name,
                share=float(share),
                lines=[(c.name, c.probability) for c in self.top_classes(k, top_k=top_k)],
            )
            for k, (color, name, share) in enumerate(
                zip(self.bank.colors, self.bank.names, self.bank.shares.tolist(), strict=True)
            )
        ]

    def overlay(
        self, index: int = 0, *, top_k: int = 3, with_legend: bool = True, image_weight: float = 0.5
    ) -> Image.Image:
        """Draw the strongest concept at each pixel over the photo, with a legend at its right."""
        pixels = self._drawn(index)
        maps = self.heatmaps(index, (pixels.shape[0], pixels.shape[1]))
        painted = overlay(pixels, maps, colors=self.bank.colors, image_weight=image_weight)
        if not with_legend:
            return Image.fromarray(painted)
        return panel([("", painted)], legend=self.legend_entries(top_k=top_k))

    def panel(
        self, index: int = 0, *, target: int | str | None = None, top_k: int = 3
    ) -> Image.Image:
        """Draw photo | concepts | Grad-CAM side by side, with titles and the legend."""
        pixels = self._drawn(index)
        size = (pixels.shape[0], pixels.shape[1])
        wanted = self.target(target, index)
        name = class_name(wanted, self.class_names)
        concepts = overlay(pixels, self.heatmaps(index, size), colors=self.bank.colors)
        pictures = [(self.pictures[index].name, pixels), (f"{len(self.bank)} concepts", concepts)]
        if not self.unscored:
            cam = self._cam(wanted, index, size)
            pictures.append((f"Grad-CAM: {name}", heatmap_overlay(pixels, cam)))
        return panel(
            pictures,
            legend=self.legend_entries(top_k=top_k),
        )

    def _drawn(self, index: int) -> np.ndarray:
        """Return the photo at the size it is drawn at."""
        picture = self.pictures[index]
        longest = max(picture.height, picture.width)
        if longest <= LONGEST_SIDE:
            return picture.pixels
        factor = LONGEST_SIDE / longest
        size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
        return cv2.resize(picture.pixels, size, interpolation=cv2.INTER_AREA)

    def as_dict(self, *, top_k: int = 3) -> dict[str, Any]:
        """Return all scores as plain data (:func:`dff.explain.saving.as_dict`)."""
        from dff.explain.saving import as_dict

        return as_dict(self, top_k=top_k)

    def save(
        self,
        folder: str | Path,
        *,
        top_k: int = 3,
        target: int | str | None = None,
        formats: Sequence[str] | None = None,
    ) -> list[Path]:
        """Write pictures, scores, arrays and bank (:func:`dff.explain.saving.save`)."""
        from dff.explain.saving import save

        return save(self, folder, top_k=top_k, target=target, formats=formats)

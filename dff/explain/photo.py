"""The record of one photo: all that one pass of the model leaves of it.

Notation: A (pixels x channels) ~= W (pixels x concepts) · H (concepts x channels). What asks
about a photo (evidence, checks, drawing, saving) takes a :class:`Photo`; an explanation is a row
of them, in the same :class:`SharedConcepts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dff.activations import Tail
from dff.activations.outputs import Meaning
from dff.concepts import ConceptBank
from dff.errors import LayerError, ModelError, UsageError
from dff.explain.one_pass import Tape
from dff.images import Picture
from dff.labels import class_index, class_name
from dff.maps import Grid, MaskOptions, masks_of, rescale, upsample
from gradcam import grad_cam

__all__ = ["ALL_OF_IT", "ClassScore", "Photo", "SharedConcepts", "Target"]

ALL_OF_IT = MaskOptions(components="all")

Target = int | str
"""A class, by index or by name."""


@dataclass(frozen=True)
class ClassScore:
    """A class, its probability in [0, 1] and its logit."""

    index: int
    name: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class SharedConcepts:
    """The concepts that photos share, and what each says about the classes.

    Attributes:
        bank: the concepts: embeddings, full presence, shares, names, colours.
        logits: (k, classes) of each concept at full presence; (k, 0) without a head.
        class_names: names of the classes, or None.
        unscored: why the concepts have no scores; None where they have.
        meaning: what the model's output is, and how logits become probabilities.
    """

    bank: ConceptBank
    logits: Tensor
    class_names: tuple[str, ...] | None = None
    unscored: str | None = None
    meaning: Meaning = Meaning()  # noqa: RUF009 - frozen

    def check_scored(self) -> None:
        """Raise with the reason if the concepts have no scores.

        Raises:
            ModelError: the model has no head, so that photos have no classes either.
            LayerError: the layer's grid has no say in the output.
        """
        if self.unscored:
            raise (ModelError if self.headless else LayerError)(self.unscored)

    @property
    def headless(self) -> bool:
        """Whether the model has no classes at all."""
        return not self.logits.shape[1]

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 7"."""
        return class_name(index, self.class_names)

    def top_classes(self, concept: int, *, top_k: int) -> list[ClassScore]:
        """Return the classes that a concept (from 0) speaks for; none where it has no scores."""
        return [] if self.unscored else self.likeliest(self.logits[concept], top_k)

    def likeliest(self, logits: Tensor, top_k: int) -> list[ClassScore]:
        """Return the likeliest classes of logits (classes,), best first."""
        values, indices = self.meaning.probabilities(logits).topk(min(top_k, len(logits)))
        return [
            ClassScore(i, self.class_name(i), value, float(logits[i]))
            for value, i in zip(values.tolist(), indices.tolist(), strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo, its concepts, and the rest of the model.

    Attributes:
        picture: the photo as it was read.
        shared: the concepts, which other photos may share.
        coefficients: W as (k, rows, cols), on `grid`.
        layer_grid: where the layer's cells lie in the model's input.
        fine: how many times as fine `grid` is (:func:`dff.activations.stitched`).
        logits: (classes,) float32; (0,) without a head.
        tape: activations and logits of the batch that the photo ran in.
        tail: the rest of the model, for that batch.
        item: the photo's place in the batch.
    """

    picture: Picture
    shared: SharedConcepts
    coefficients: Tensor
    layer_grid: Grid
    fine: int
    logits: Tensor
    tape: Tape = field(repr=False)
    tail: Tail = field(repr=False)
    item: int = field(repr=False)

    @property
    def bank(self) -> ConceptBank:
        """The concepts."""
        return self.shared.bank

    @property
    def grid(self) -> Grid:
        """Where the cells of the maps lie in the model's input."""
        return self.layer_grid.finer(self.fine)

    @property
    def layer_coefficients(self) -> Tensor:
        """W (k, rows, cols) at the layer's own cells alone: what the rest of the model takes."""
        return self.coefficients[:, :: self.fine, :: self.fine]

    @property
    def activations(self) -> Tensor:
        """A as (channels, rows, cols) float32 at the layer's cells, without its graph."""
        return self.tape.maps[self.item].detach().float()

    @property
    def image(self) -> Tensor:
        """(3, height, width): the model's input, normalised."""
        return self.tail.inputs[self.item].detach()

    def target(self, target: Target | None = None) -> int:
        """Return a class index for an index, a name, or None (the photo's likeliest class).

        Raises:
            UsageError: no such class.
            ModelError: the model has no head.
        """
        if self.shared.headless:
            self.shared.check_scored()
        if target is None:
            return int(self.logits.argmax())
        return class_index(target, self.shared.class_names, len(self.logits))

    def predictions(self, *, top_k: int) -> list[ClassScore]:
        """Return the photo's likeliest classes, best first."""
        return self.shared.likeliest(self.logits, top_k)

    def maps(self, *, level: str = "part") -> np.ndarray:
        """Return the presence (nodes, rows, cols) float32 in [0, 1] at the cells.

        Args:
            level: "part" is the concepts, "object" also their unions
                (:meth:`dff.ConceptBank.nodes`).
        """
        return self.bank.presence(self.coefficients, level=level).numpy()

    def heatmaps(self, size: tuple[int, int] | None = None, *, level: str = "part") -> np.ndarray:
        """Return the maps (nodes, height, width) on the photo's own pixels, or at another size."""
        size = size or (self.picture.height, self.picture.width)
        return upsample(self.maps(level=level), size, self.grid)

    def masks(self, options: MaskOptions = ALL_OF_IT, *, level: str = "part") -> np.ndarray:
        """Return where each node is, (nodes, height, width) bool, on the photo's own pixels.

        Args:
            options: how maps become masks; all connected components are kept by default.
            level: as in :meth:`maps`.
        """
        size = (self.picture.height, self.picture.width)
        runs, _ = masks_of(
            self.maps(level=level), self.grid, size, options, guide=self.picture.pixels
        )
        return np.stack([mask.drawn() for mask in runs])

    @torch.inference_mode(False)
    @torch.enable_grad()
    def cam(self, target: Target | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return Grad-CAM (height, width) in [0, 1], stretched to its own range.

        Raises:
            UsageError: no such class, or explained with ``cam=False``.
            LayerError: the layer's grid has no say in the output.
            ModelError: the model has no head.
        """
        self.shared.check_scored()
        if not self.tape.maps.requires_grad:
            raise UsageError("Grad-CAM was not kept; explain with cam=True")
        if not self.tape.logits.requires_grad:
            raise LayerError(
                "no gradient leads from the scores to the layer: Grad-CAM needs one (a detector "
                "that found no box has none)"
            )
        logit = self.tape.logits[self.item, self.target(target)]
        (gradients,) = torch.autograd.grad(logit, self.tape.maps, retain_graph=True)
        gradient = gradients[self.item].float()
        cells = grad_cam(self.activations[None], gradient[None])[0].cpu().numpy()
        size = size or (self.picture.height, self.picture.width)
        return rescale(upsample(cells, size, self.layer_grid))

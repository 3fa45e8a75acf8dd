"""The record of one photo: all that one pass of the model leaves of it.

Notation: A (pixels x channels) ~= W (pixels x concepts) · H (concepts x channels). What asks
about a photo (evidence, checks, drawing, saving) takes a :class:`Photo`; an explanation is a row
of them, in the same :class:`SharedConcepts`. A clip is a row of photos, too, one a frame: each has
its own maps, and all that is asked of the model's scores is asked of the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dff.activations import Tail
from dff.activations.reach import leads_to, no_gradients
from dff.concepts import ConceptBank, explained_shares
from dff.errors import ModelError, UsageError
from dff.explain.one_pass import Tape
from dff.explain.shared import ClassScore, SharedConcepts
from dff.images import Picture
from dff.labels import class_index
from dff.maps import Grid, MaskOptions, masks_of, rescale, upsample
from dff.scoring import label_probes
from gradcam import grad_cam

__all__ = ["ALL_OF_IT", "Photo", "Strip", "Target", "clips_of"]

ALL_OF_IT = MaskOptions(components="all")

Target = int | str
"""A class, by index or by name."""


@dataclass(frozen=True, eq=False)
class Strip:
    """Where a frame lies on the strip of its clip's grids.

    Attributes:
        coefficients: W (k, grids · rows, cols) of the whole clip, one grid below the other.
        grids: how many grids there are; each stands for the same number of frames.
        frame: of the clip, from 0.
        frames: of the clip.
    """

    coefficients: Tensor
    grids: int
    frame: int
    frames: int

    def at_frame(self, cells: Tensor) -> Tensor:
        """Return (…, rows, cols) at the frame of cells (…, grids · rows, cols).

        Between the middles of two grids' frames it is interpolated linearly.
        """
        grids = cells.unflatten(-2, (self.grids, -1)).movedim(-3, 0)
        place = (self.frame + 0.5) * self.grids / self.frames - 0.5
        place = min(max(place, 0.0), self.grids - 1.0)
        before = int(place)
        after = min(before + 1, self.grids - 1)
        return torch.lerp(grids[before], grids[after], place - before)


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
        strip: the clip that the photo is a frame of; None for a photo by itself.
        probed: (2k, classes) of the photo's :func:`dff.scoring.label_probes`, where they went
            through the rest of the model together with the photo.
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
    strip: Strip | None = field(default=None, repr=False)
    probed: Tensor | None = field(default=None, repr=False)
    _gradients: dict[int, Tensor] = field(default_factory=dict, repr=False)

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
        """W (k, rows, cols) at the layer's own cells alone: what the rest of the model takes.

        Of a frame it is that of the whole clip, one grid below the other.
        """
        if self.strip is not None:
            return self.strip.coefficients
        return self.coefficients[:, :: self.fine, :: self.fine]

    def in_concepts(self, shared: SharedConcepts, part: slice) -> Photo:
        """Return the photo with some of its concepts, which are those of `shared`."""
        strip = self.strip and replace(self.strip, coefficients=self.strip.coefficients[part])
        probed = self.probed
        if probed is not None:
            probed = probed.unflatten(0, (2, -1))[:, part].flatten(0, 1)
        return replace(
            self, shared=shared, coefficients=self.coefficients[part], strip=strip, probed=probed
        )

    def follows(self, other: Photo) -> bool:
        """Whether it is the frame after another one of the same clip."""
        if self.strip is None or other.strip is None or self.tape is not other.tape:
            return False
        return self.item == other.item and self.strip.frame == other.strip.frame + 1

    def check_still(self, asked: str) -> None:
        """Raise if it is a frame of a clip, for which what is `asked` is not offered.

        Raises:
            UsageError: it is.
        """
        if self.strip is not None:
            raise UsageError(
                f"{asked} is for photos; of a clip ask for contributions, or for the evidence "
                "'ablation', 'sobol' or 'gradient'"
            )

    @property
    def activations(self) -> Tensor:
        """A as (channels, rows, cols) float32 at the layer's cells, without its graph."""
        return self.tape.maps[self.item].detach().float()

    @cached_property
    def shares(self) -> Tensor:
        """The share of the photo's activations that each concept explains (k,).

        Of a photo in concepts of its own they are the bank's; a clip is one photo.
        """
        rows = self.activations.flatten(1).T.cpu()
        above = rows if self.bank.offset is None else rows - self.bank.offset.to(rows)
        coefficients = self.layer_coefficients.flatten(1).T
        return explained_shares(above, coefficients, self.bank.components.cpu())

    @cached_property
    def probe_logits(self) -> Tensor:
        """(2k, classes) of :func:`dff.scoring.label_probes`: from the pass, or asked for now."""
        if self.probed is not None:
            return self.probed
        maps = self.activations
        probes = label_probes(
            maps,
            self.layer_coefficients.to(maps),
            self.bank.components.to(maps),
            self.bank.scale.to(maps),
            grids=self.strip.grids if self.strip else 1,
        )
        with torch.no_grad():
            return self.tail(probes, self.item).float()

    @property
    def image(self) -> Tensor:
        """(channels, height, width): the model's input, normalised; of a clip with its frames."""
        return self.tail.inputs[self.item].detach()

    @cached_property
    def undifferentiable(self) -> str | None:
        """Why no gradient passes from the layer to the logits; None where one may."""
        reason = no_gradients(self.tail.model)
        asked = self.tape.maps.requires_grad
        if not reason and asked and not leads_to(self.tape.logits, self.tape.maps):
            return (
                "no gradient passes the rest of the model (something in it detaches, or a detector "
                "found no box): ask for the evidence 'ablation', 'blur' or 'sobol', which need none"
            )
        return reason

    def check_differentiable(self) -> None:
        """Raise with the reason if no gradient passes the rest of the model.

        Raises:
            ModelError: it is quantised, or records nothing.
        """
        if reason := self.undifferentiable:
            raise ModelError(reason)

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
        """Return the maps (nodes, height, width) on the photo's own pixels, or at another size.

        Interpolated from the cells, not fitted to the photo's edges.

        Raises:
            UsageError: the size is no (height, width), or there is no such level.
        """
        if size is None:
            size = self.picture.height, self.picture.width
        if np.shape(size) != (2,) or min(size) < 1:
            raise UsageError(f"size is (height, width) in pixels, not {size!r}")
        return upsample(self.maps(level=level), size, self.grid)

    def masks(self, options: MaskOptions = ALL_OF_IT, *, level: str = "part") -> np.ndarray:
        """Return where each node is, (nodes, height, width) bool, on the photo's own pixels.

        Args:
            options: how maps become masks; all connected components are kept by default.
            level: as in :meth:`maps`.
        """
        if not isinstance(options, MaskOptions):
            raise UsageError(f"options is a MaskOptions, not {options!r:.40}")
        size = (self.picture.height, self.picture.width)
        runs, _ = masks_of(
            self.maps(level=level), self.grid, size, options, guide=self.picture.pixels
        )
        return np.stack([mask.drawn() for mask in runs])

    def cam(self, target: Target | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return Grad-CAM (height, width) in [0, 1], stretched to its own range.

        Of a frame to that of its whole clip.

        Raises:
            UsageError: no such class, or explained with ``cam=False``.
            LayerError: the layer's grid has no say in the output.
            ModelError: the model has no head.
        """
        return self.cam_on_pixels(self.cam_cells(target), size)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def gradient(self, index: int) -> Tensor:
        """Return the gradient (channels, rows, cols) float32 of a class's logit to A, by the pass.

        Taken once a class. Grad-CAM must have been kept (``tape.maps.requires_grad``).
        """
        if index not in self._gradients:
            logit = self.tape.logits[self.item, index]
            (gradients,) = torch.autograd.grad(logit, self.tape.maps, retain_graph=True)
            self._gradients[index] = gradients[self.item].float()
        return self._gradients[index]

    def cam_cells(self, target: Target | None = None) -> Tensor:
        """Return Grad-CAM (rows, cols) at the layer's cells, of a clip at those of all its grids.

        Raises:
            UsageError, LayerError, ModelError: as :meth:`cam`.
        """
        self.shared.check_scored()
        self.check_differentiable()
        if not self.tape.maps.requires_grad:
            raise UsageError("Grad-CAM was not kept; explain with cam=True")
        gradient = self.gradient(self.target(target))
        return grad_cam(self.activations[None], gradient[None])[0].cpu()

    def cam_on_pixels(self, cells: Tensor, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return :meth:`cam_cells` (of the whole clip) as :meth:`cam` shows them."""
        size = size or (self.picture.height, self.picture.width)
        if self.strip is None:
            return rescale(upsample(cells.numpy(), size, self.layer_grid))
        stretched = torch.from_numpy(rescale(cells.numpy()))  # over the whole clip
        return upsample(self.strip.at_frame(stretched).numpy(), size, self.layer_grid)


def clips_of(photos: Sequence[Photo]) -> list[tuple[Photo, ...]]:
    """Return the frames of each clip together; a photo by itself stands alone."""
    groups: list[list[Photo]] = []
    for photo in photos:
        if groups and photo.follows(groups[-1][-1]):
            groups[-1].append(photo)
        else:
            groups.append([photo])
    return [tuple(group) for group in groups]

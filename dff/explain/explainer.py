"""A model made ready to be explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dff.activations import LayoutLike, Tail, resolve_layer, stitched
from dff.activations.borrowing import plainly
from dff.activations.context import Given, found_image, given_rows
from dff.activations.layers import probe_input
from dff.activations.memory import input_format
from dff.activations.outputs import BoxScore, Score, check_output
from dff.concepts import (
    ConceptBank,
    Concepts,
    Factorizer,
    Selection,
    check_factorizer,
    factorize,
    joined,
    select,
    sweep_banks,
)
from dff.errors import ModelError, UsageError
from dff.explain.explanation import Explanation
from dff.explain.inputs import (
    Images,
    Shot,
    fitting,
    from_tensor,
    in_batches,
    read_shots,
    to_tensors,
    whole_inputs,
)
from dff.explain.one_pass import Factorize, Tape, one_pass, unscored_pass
from dff.explain.questions.labels import ask_for_labels
from dff.explain.records import Group, photos_of
from dff.explain.shared import SharedConcepts
from dff.explain.sweep import Sweep
from dff.explain.target_layer import ends_of, target_layer, why_unscored
from dff.images import Preprocessing
from dff.maps import Grid
from dff.models import given_model, with_all_boxes, without_head

__all__ = ["Explainer"]

DEFAULT_CONCEPTS = 5


class Explainer:
    """A model, its target layer and its preprocessing: call it on photos.

    Args:
        model: a name for :func:`dff.load_model`, what that returns, a module of your own, or a
            Hugging Face pipeline of images. One that takes more than images is given the rest
            (:class:`dff.Given`), which :meth:`given` changes.
        layer: the target layer, by dotted name or module; None finds the last one that still
            has a grid (:meth:`dff.activations.layers.Survey.default`).
        layout: how the layer's output reads as maps; None recognises it.
        preprocessing: of photos; None takes the model's own. One number for all channels stands
            for as many as the model takes.
        class_names: one a class; of a single logit one, or two of which the second is what the
            logit speaks for. None takes the model's own.
        score: for a model that is no classifier: from its output for n images to scores
            (n, classes), such as those of :mod:`dff.activations.outputs.heads` for a region, a box
            or a regression. None takes the logits, or the output's first tensor, averaged over its
            positions; of a detector each class's best box; of a backbone without a head (DINO,
            CLIP, MAE, ``num_classes=0``) nothing, and nothing is scored.
        output: how scores are to be read (:data:`dff.activations.outputs.ASKED`): "logits" (one a
            class, softmax), "probabilities" (as they are), "binary" (one logit, sigmoid),
            "multilabel" (labels, sigmoid), or "values" (a regression's). None goes by evidence.
        factorizer: what finds the concepts in place of NMF and semi-NMF: a name
            (:data:`dff.concepts.FACTORIZERS`), a factorizer of :mod:`dff.nmf`, or a scikit-learn
            decomposition or clustering with coefficients of 0 or more. How many it finds is said
            by the call. None: the sign of the activations decides.
        device: where a model given by name runs, such as "cuda"; a module of your own stays
            where it is.

    Attributes:
        fine: how many times as fine as the layer's the maps' grid is (:meth:`finer`).
        layer_info: what is known of the target layer, and how far a patch that moves takes its
            response along (not tried where a layout was given).
        meaning: what the output was taken for, and why (:class:`dff.activations.outputs.Meaning`).
        headless: the model has no scores at all: photos have no classes either.
        unscored: why the concepts have no scores; None where they have.
        untrained: the weights are random, as was asked for: scores mean nothing.
        recipe: how the model is built by its name, for banks; empty for a module of your own.

    Raises:
        UsageError: no such factorizer or kind of output, an output that cannot be of that kind, or
            class names that do not fit it.
        ModelError: no such model, or its weights cannot be had.
        LayerError: no such layer, or none with a grid.
    """

    def __init__(
        self,
        model: Any = "resnet50",
        *,
        layer: str | nn.Module | None = None,
        layout: LayoutLike = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | None = None,
        score: Score | None = None,
        output: str | None = None,
        factorizer: str | Factorizer | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.factorizer = check_factorizer(factorizer)
        asked = check_output(output)
        loaded = given_model(model, device)
        box = score if isinstance(score, BoxScore) else None  # on noise, nothing is found in it
        score = None if box else score
        self.model = loaded.module if score else with_all_boxes(loaded.module)
        self.name, self.untrained = loaded.name, loaded.untrained
        self.preprocessing = prep = fitting(preprocessing, loaded.preprocessing)
        self.recipe = loaded.recipe_with(prep, asked, own_names=class_names is not None)
        probe = probe_input((prep.size, prep.size), self.model, prep.channels, prep.frames)
        self.device, self.dtype = probe.device, probe.dtype
        self._memory = input_format(self.model)
        name = None if layer is None else resolve_layer(self.model, layer)[0]
        surveyed, info = target_layer(
            given_rows(self.model, [0]), probe, name, layout,
            score=score, head=loaded.unscored is None, output_kind=asked,
        )  # fmt: skip
        self.layer, self.layer_info = info.name, info
        self.layout = layout or ends_of(info)
        own_grids = info.layout.frames if info.layout else None
        self._grids = None if prep.frames is None else own_grids or 1
        self.headless = surveyed.meaning.kind == "embeddings"
        own = loaded.unscored or without_head(f"{self.name}: {surveyed.meaning.found}")
        self.unscored = own if self.headless else why_unscored(info)
        if self.headless and asked:
            raise ModelError(f"the output cannot be read as {asked}: {own}")
        names = loaded.class_names if class_names is None else class_names
        if class_names is None and score and len(names or ()) != surveyed.meaning.classes:
            names = None  # those of the logits, which are not scored
        self.class_names = tuple(names) if names else None
        meaning = replace(surveyed.meaning, score=box) if box else surveyed.meaning
        self.meaning = meaning.named(names) if names else meaning
        self._geometry = plainly(lambda: surveyed.geometry(info.name))
        maps = info.layout.to_maps(torch.empty(info.shape)) if info.layout else torch.empty(2, 2)
        self._probe_grid = self.grid(maps, probe)
        self.fine = 1

    def __call__(
        self,
        images: Images,
        *,
        concepts: Concepts = DEFAULT_CONCEPTS,
        bank: ConceptBank | None = None,
        cam: bool = True,
    ) -> Explanation:
        """Explain one photo, or several in shared concepts.

        Args:
            images: a path (of a folder all images in it), http(s) URL, bytes, Pillow image, uint8
                or [0, 1] array (height, width, channels), or a list of them; or a tensor
                (channels, h, w) or (n, channels, h, w) that is normalised already, or a tuple or
                dict of all that the model takes, with such a tensor.
            concepts: how many to find, from 1 to the number of cells and of channels; "auto", or
                a range, lets their stability choose (:func:`dff.concepts.choose_components`).
            bank: explain in these concepts instead of finding new ones.
            cam: keep what Grad-CAM needs (the activations after the layer stay in memory).

        Raises:
            ImageError: an image that cannot be read.
            UsageError: a number of concepts that cannot be.
            FactorizationError: activations with NaN, or all zero.
        """
        if (isinstance(concepts, (int, np.integer)) and concepts < 1) or isinstance(
            concepts, float
        ):
            raise UsageError(f"concepts is a whole number from 1 on, not {concepts!r}")
        if bank is not None:
            bank.check(self.name, self.layer)

        def fit(rows: Tensor) -> tuple[ConceptBank, Tensor]:
            if bank is not None:
                return bank, bank.encode(rows)
            return factorize(
                rows, concepts, factorizer=self.factorizer, model=self.name, layer=self.layer
            )

        return self._explain(images, fit, cam)

    def sweep(
        self,
        images: Images,
        *,
        concepts: str | range = "auto",
    ) -> Sweep:
        """Explain photos in few and in many concepts, in one pass, and say how many there are.

        Args:
            images: as in a call.
            concepts: the numbers to try; "auto" is 2 to 12, as far as the activations allow.

        Raises:
            UsageError: more concepts than halves of the activations can show; an explainer with a
                factorizer of its own.
        """
        if self.factorizer is not None:
            raise UsageError("a sweep is by NMF or semi-NMF; make an Explainer without factorizer=")
        swept: list[tuple[Selection, list[ConceptBank]]] = []

        def fit(rows: Tensor) -> tuple[ConceptBank, Tensor]:
            selection = select(rows, concepts, layer=self.layer)
            banks, coefficients = sweep_banks(selection, rows, model=self.name, layer=self.layer)
            swept.append((selection, [replace(bank, recipe=self.recipe) for bank in banks]))
            return joined(banks), torch.cat(coefficients, 1)

        explanation = self._explain(images, fit, True)
        return Sweep.split(explanation, *swept[-1])

    def _explain(self, images: Images, fit: Factorize, cam: bool) -> Explanation:
        """Read the images, and run the pass; squash photos where the model takes squares only."""
        # Explanations are the same whatever mode the caller is in, and take gradients later.
        return plainly(lambda: self._explained(images, fit, cam))

    def _explained(self, images: Images, fit: Factorize, cam: bool) -> Explanation:
        prep = self.preprocessing
        if (arguments := whole_inputs(images)) is not None:
            images, rest = found_image(arguments)
            return self.given(*rest.args, **rest.kwargs)._explained(images, fit, cam)
        if isinstance(images, Tensor):
            return self._pass(*from_tensor(images, prep), fit, cam)
        shots = read_shots(images, prep)
        try:
            return self._pass(shots, to_tensors(shots, prep), fit, cam)
        except ModelError:
            square = prep.size, prep.size
            if all(tuple(x.shape[-2:]) == square for x in to_tensors(shots, prep)):
                raise
            # Perhaps it takes nothing but squares (its positions are fixed).
            squashing = replace(prep, fixed=True)
            explanation = self._pass(shots, to_tensors(shots, squashing), fit, cam)
        self.preprocessing = squashing  # from now on, as that worked
        return explanation

    def _pass(
        self, shots: Sequence[Shot], tensors: Sequence[Tensor], fit: Factorize, cam: bool
    ) -> Explanation:
        """Run the pass, in batches that memory has room for."""
        if isinstance(self.model, Given):
            self.model.check(len(shots))
        sizes = [tuple(x.shape) for x in tensors]
        return in_batches(
            sizes, lambda batches: self._in_batches(shots, tensors, batches, fit, cam)
        )

    def _in_batches(
        self,
        shots: Sequence[Shot],
        tensors: Sequence[Tensor],
        batches: Sequence[Sequence[int]],
        fit: Factorize,
        cam: bool,
    ) -> Explanation:
        stacks = (torch.stack([tensors[i] for i in batch]) for batch in batches)
        own, memory = (self.device, self.dtype), self._memory
        groups = [x.to(*own).contiguous(memory_format=memory) for x in stacks]
        probe = None if self._grids or self.unscored else ask_for_labels
        scored = partial(one_pass, score=self.meaning, grad=cam, probe=probe)
        run = unscored_pass if self.headless else scored
        stitch = None if self.fine == 1 else self.stitch
        model = given_rows(self.model, [i for batch in batches for i in batch])
        result = run(model, self.layer, groups, fit, layout=self.layout, stitch=stitch)
        bank = result.bank if result.bank.recipe else replace(result.bank, recipe=self.recipe)
        shared = SharedConcepts(
            bank, result.concept_logits.float().cpu(), self.class_names, self.unscored, self.meaning
        )
        clip = self._grids and (self._grids, self.preprocessing.frames or 1)
        *first, last = map(self._group, batches, groups, result.tapes, result.coefficients)
        records = [*first, replace(last, probed=result.probed)]
        return Explanation(photos_of(shots, records, shared, fine=self.fine, clip=clip or None))

    def _group(self, batch: Sequence[int], x: Tensor, tape: Tape, coefficients: Tensor) -> Group:
        model = given_rows(self.model, batch)
        tail = Tail(model, self.layer, x, layout=self.layout, score=self.meaning)
        return Group(batch, tape, coefficients, tail, self.grid(tape.maps, x), None)

    def grid(self, maps: Tensor, x: Tensor) -> Grid:
        """Return where the cells of the layer's maps (…, rows, cols) lie in the input (…, h, w).

        Those of a clip are the same for each of its grids.
        """
        rows, cols = int(maps.shape[-2]) // (self._grids or 1), int(maps.shape[-1])
        return self._geometry.grid(rows, cols, (int(x.shape[-2]), int(x.shape[-1])))

    def stitch(self, maps: Tensor, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the layer's maps of inputs made `fine` times as fine; `run` leads to the layer."""
        return stitched(maps, x, self.grid(maps, x), self.fine, run)

    def given(self, *args: Any, **kwargs: Any) -> Explainer:
        """Return an explainer with other inputs beside the image: see :class:`dff.Given`.

        Raises:
            UsageError: the model takes images alone.
        """
        if not isinstance(self.model, Given):
            raise UsageError("the model takes images alone; of others, explain dff.Given(model, …)")
        other = copy(self)
        other.model = self.model.given(*args, **kwargs)
        return other

    def finer(self, fine: int) -> Explainer:
        """Return an explainer with maps on a grid N = `fine` times as fine along each axis.

        By shift-and-stitch (:func:`dff.activations.stitched`): the model runs N² times up to the
        layer. Classes, scores and Grad-CAM stay those of the photo as it is.

        Raises:
            UsageError: `fine` is no whole number from 1 on, or more than the layer's stride.
        """
        if self._grids is not None and fine > 1:
            raise UsageError("finer grids are for photos: a clip's are as they come")
        self._probe_grid.finer(fine)
        finer = copy(self)
        finer.fine = fine
        return finer

"""The one pass: activations, concepts, scores and gradients out of a single forward pass.

Photos of one input size form a group. Every group runs once; in the hook of the last one, all
activations are at hand, so the factorization runs there, and each concept joins the batch as a
further item: the rest of the model classifies photos and concepts together.

Where the maps shall be finer than the layer's, their cells take passes over shifted photos, which
end at the layer; the concepts of all cells then go through the rest of the model by themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from dff.activations import STOP, Answer, Appended, LayoutLike, Tail, intercept, run_scored
from dff.activations.borrowing import plainly
from dff.activations.context import Given, given_rows
from dff.activations.failures import model_errors
from dff.activations.layouts import over_grid
from dff.activations.memory import stored_like
from dff.activations.outputs import Score
from dff.concepts import ConceptBank
from dff.errors import FactorizationError, ModelError

__all__ = ["PassResult", "Stitch", "Tape", "checked_rows", "one_pass", "unflatten", "unscored_pass"]

Factorize = Callable[[Tensor], tuple[ConceptBank, Tensor]]
Probe = Callable[[Tensor, ConceptBank, Tensor], Tensor | None]
"""From A (n, c, rows, cols) of a group, the concepts, and W (n, k, rows, cols) to further
activations (n, m, c, rows, cols) that the rest of the model is asked about; None for nothing."""
Stitch = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
"""From the maps of a group, its input, and the model up to the layer, to finer maps."""


@dataclass(frozen=True, eq=False)
class Tape:
    """What a group's pass leaves for Grad-CAM.

    Attributes:
        maps: (n, channels, rows, cols) activations, the leaf that gradients are taken to.
        logits: (n, classes); with a gradient to `maps` if that was asked for.
    """

    maps: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class PassResult:
    """The result of the pass.

    Attributes:
        bank: the concepts.
        coefficients: for each group (n, k, rows, cols), on the finer grid if there is one.
        tapes: for each group.
        concept_logits: (k, classes): each concept's scores at full presence.
        probed: (n, m, classes) of the last group's probes; None where there are none.
    """

    bank: ConceptBank
    coefficients: list[Tensor]
    tapes: list[Tape]
    concept_logits: Tensor
    probed: Tensor | None = None


@dataclass
class _Progress:
    """What the hooks have gathered so far."""

    maps: list[Tensor] = field(default_factory=list)
    bank: ConceptBank | None = None
    coefficients: list[Tensor] = field(default_factory=list)
    probes: Tensor | None = None


def one_pass(
    model: nn.Module,
    layer: str,
    groups: Sequence[Tensor],
    factorize: Factorize,
    *,
    layout: LayoutLike = None,
    score: Score | None = None,
    grad: bool = True,
    stitch: Stitch | None = None,
    probe: Probe | None = None,
) -> PassResult:
    """Run every group once, factorize in the last one's hook, and score the concepts there.

    Args:
        model: any module; one with context (:class:`dff.activations.Given`) has it for all
            photos, those of one group after the other.
        layer: dotted name of the target layer.
        groups: inputs (n, 3, height, width), one for each input size.
        factorize: from A (pixels of all groups, channels) to the concepts and W (pixels, k).
        layout: see :func:`dff.activations.intercept`.
        score: from the model's output to scores (n, classes); None reads the logits.
        grad: keep what Grad-CAM needs.
        stitch: makes the maps finer before they are factorized (:func:`dff.activations.stitched`);
            None leaves them as they are.
        probe: what else is asked of the rest of the model, in the same pass where that can be.

    Raises:
        DFFError: what `intercept` and `factorize` raise.
        ModelError: the model failed; its own error is the cause.
    """
    if stitch is None and not isinstance(model, Given):
        run = partial(run_scored, model, layer, layout=layout, score=score)
        return _at_once(run, layer, groups, factorize, grad, probe)
    models = _by_group(model, groups)
    seen: list[Tensor] = []
    outputs = [
        run_scored(one, layer, x, seen.append, layout=layout, score=score, grad=grad)
        for one, x in zip(models, groups, strict=True)
    ]
    bank, coefficients = _factorized(
        _stitched(models, layer, seen, groups, layout, stitch), layer, factorize
    )
    tails = [
        Tail(one, layer, x, layout=layout, score=score)
        for one, x in zip(models, groups, strict=True)
    ]
    concept_logits = _concept_logits(tails, bank, seen)
    tapes = [Tape(maps, logits) for maps, logits in zip(seen, outputs, strict=True)]
    return PassResult(bank, coefficients, tapes, concept_logits)


def unscored_pass(
    model: nn.Module,
    layer: str,
    groups: Sequence[Tensor],
    factorize: Factorize,
    *,
    layout: LayoutLike = None,
    stitch: Stitch | None = None,
) -> PassResult:
    """Run every group of a model without a head as far as the layer, and factorize what it gave.

    Arguments and errors are those of :func:`one_pass`; all logits are of no class, (n, 0).
    """
    models = _by_group(model, groups)
    seen = [_to_layer(one, layer, x, layout=layout) for one, x in zip(models, groups, strict=True)]
    bank, coefficients = _factorized(
        _stitched(models, layer, seen, groups, layout, stitch), layer, factorize
    )
    tapes = [Tape(maps, torch.zeros(len(maps), 0)) for maps in seen]
    return PassResult(bank, coefficients, tapes, torch.zeros(len(bank), 0))


def _by_group(model: nn.Module, groups: Sequence[Tensor]) -> list[nn.Module]:
    """Return the model for each group, with the context of the group's photos."""
    ends = itertools.accumulate(map(len, groups))
    return [
        given_rows(model, range(end - len(x), end)) for x, end in zip(groups, ends, strict=True)
    ]


def _stitched(
    models: Sequence[nn.Module],
    layer: str,
    seen: list[Tensor],
    groups: Sequence[Tensor],
    layout: LayoutLike,
    stitch: Stitch | None,
) -> list[Tensor]:
    """Return the groups' maps, made finer if they shall be."""
    if stitch is None:
        return seen
    return [
        stitch(maps, x, partial(_to_layer, model, layer, layout=layout))
        for model, maps, x in zip(models, seen, groups, strict=True)
    ]


def _concept_logits(tails: Sequence[Tail], bank: ConceptBank, seen: Sequence[Tensor]) -> Tensor:
    """Return what each concept says at full presence (k, classes).

    Where photos have context of their own, it is the mean over them.
    """
    concepts = over_grid(bank.at_full_presence, seen[-1].detach())
    if not isinstance(tails[-1].model, Given) or sum(map(len, seen)) == 1:
        return tails[-1](concepts).detach()
    found = [
        tail(over_grid(bank.at_full_presence, maps.detach()), item).detach()
        for tail, maps in zip(tails, seen, strict=True)
        for item in range(len(maps))
    ]
    return torch.stack(found).mean(0)


def _factorized(
    cells: Sequence[Tensor], layer: str, factorize: Factorize
) -> tuple[ConceptBank, list[Tensor]]:
    """Return the concepts of all groups' maps, and W (n, k, rows, cols) of each group."""
    with torch.no_grad():
        bank, coefficients = factorize(checked_rows(cells, layer))
    return bank, unflatten(coefficients, cells)


def _to_layer(model: nn.Module, layer: str, x: Tensor, *, layout: LayoutLike) -> Tensor:
    """Return the layer's maps (n, channels, rows, cols); the pass ends there."""
    seen: list[Tensor] = []

    def capture(maps: Tensor) -> Answer:
        seen.append(maps)
        return STOP

    with model_errors(model, x):
        plainly(partial(intercept, model, layer, capture, x, layout=layout), grad=False)
    return seen[0]


def _at_once(
    run: Callable[..., Tensor],
    layer: str,
    groups: Sequence[Tensor],
    factorize: Factorize,
    grad: bool,
    probe: Probe | None,
) -> PassResult:
    """Factorize in the hook of the last group, and let concepts and probes join its pass."""
    progress = _Progress()

    def capture(maps: Tensor) -> None:
        progress.maps.append(maps)

    def factorize_and_append(maps: Tensor) -> Appended:
        capture(maps)
        with torch.no_grad():
            bank, coefficients = factorize(checked_rows(progress.maps, layer))
            progress.bank, progress.coefficients = bank, unflatten(coefficients, progress.maps)
            return _joining(maps.detach(), progress, probe)

    outputs = [run(x, capture, grad=grad) for x in groups[:-1]]
    last, concept_logits, probed = _scored(run, groups[-1], factorize_and_append, progress, grad)
    outputs.append(last)
    assert progress.bank is not None
    tapes = [Tape(maps, logits) for maps, logits in zip(progress.maps, outputs, strict=True)]
    return PassResult(progress.bank, progress.coefficients, tapes, concept_logits, probed)


def _joining(maps: Tensor, progress: _Progress, probe: Probe | None) -> Appended:
    """Return what joins the last group: its concepts at full presence, and its probes."""
    bank = progress.bank
    assert bank is not None
    concepts = over_grid(bank.at_full_presence, maps)
    source = torch.zeros(len(bank), dtype=torch.long)
    progress.probes = probe(maps, bank, progress.coefficients[-1]) if probe else None
    if progress.probes is None:
        return Appended(concepts, source)
    count, each = progress.probes.shape[:2]
    source = torch.cat([source, torch.arange(count).repeat_interleave(each)])
    return Appended(torch.cat([concepts, progress.probes.flatten(0, 1).to(concepts)]), source)


def _scored(
    run: Callable[..., Tensor],
    x: Tensor,
    append: Callable[[Tensor], Appended],
    progress: _Progress,
    grad: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the logits of a group, of the concepts and of the probes, by one pass if possible.

    A model that cannot take a changed batch halfway says so by an error, or by an output of
    another length; then the concepts get a pass of their own, and nothing is probed.
    """
    try:
        output, bank, probes = run(x, append, grad=grad), progress.bank, progress.probes
        sizes = [len(x), len(bank or ()), 0 if probes is None else probes.shape[:2].numel()]
        if bank is not None and len(output) == sum(sizes):
            photos, concepts, probed = output.split(sizes)
            answers = None if probes is None else probed.detach().unflatten(0, probes.shape[:2])
            return photos, concepts.detach(), answers
    except ModelError:
        if progress.bank is None:
            raise
    bank = progress.bank
    assert bank is not None
    seen = progress.maps.pop()

    def capture(maps: Tensor) -> None:
        progress.maps.append(maps)

    output = run(x, capture, grad=grad)
    repeated = stored_like(x[:1].expand(len(bank), *x.shape[1:]), x)
    concepts = over_grid(bank.at_full_presence, seen.detach())
    return output, run(repeated, lambda maps: concepts), None


def unflatten(coefficients: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """Split W (pixels, k) into (n, k, rows, cols) for each group."""
    shapes = [(len(m), m.shape[2], m.shape[3]) for m in maps]
    parts = coefficients.split([n * h * w for n, h, w in shapes])
    return [
        part.reshape(n, h, w, -1).permute(0, 3, 1, 2).contiguous()
        for part, (n, h, w) in zip(parts, shapes, strict=True)
    ]


def checked_rows(maps: Sequence[Tensor], layer: str) -> Tensor:
    """Return maps (n, c, h, w), ... as one matrix A (pixels, c) in float32, without their graph.

    Raises:
        FactorizationError: NaN, infinite values, or nothing but zeros.
    """
    parts = [m.detach().permute(0, 2, 3, 1).reshape(-1, m.shape[1]).float() for m in maps]
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    bounds = torch.stack(rows.aminmax())
    if not bool(bounds.isfinite().all()):
        count = int((~rows.isfinite()).sum())
        raise FactorizationError(
            f"the activations of layer {layer!r} hold {count} NaN or infinite values; check the "
            "weights and the preprocessing, or run the model in float32"
        )
    if not bool(bounds.any()):
        raise FactorizationError(
            f"the activations of layer {layer!r} are all zero: there is nothing to factorize; "
            "choose another layer, or check the weights and the preprocessing"
        )
    return rows

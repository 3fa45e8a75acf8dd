"""The one pass: activations, concepts, scores and gradients out of a single forward pass.

Photos of one input size form a group. Every group runs once; in the hook of the last one, all
activations are at hand, so the factorization runs there, and each concept joins the batch as a
further item: the rest of the model classifies photos and concepts together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dff.activations import Appended, LayoutLike, intercept
from dff.bank import ConceptBank
from dff.errors import DFFError, FactorizationError, ModelError
from dff.layouts import main_tensor

__all__ = ["Found", "Tape", "checked_rows", "one_pass", "unflatten"]

Factorize = Callable[[Tensor], tuple[ConceptBank, Tensor]]


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
class Found:
    """The result of the pass.

    Attributes:
        bank: the concepts.
        coefficients: for each group (n, k, rows, cols).
        tapes: for each group.
        concept_logits: (k, classes): each concept's scores at full presence.
    """

    bank: ConceptBank
    coefficients: list[Tensor]
    tapes: list[Tape]
    concept_logits: Tensor


@dataclass
class _Progress:
    """What the hooks have gathered so far."""

    maps: list[Tensor] = field(default_factory=list)
    bank: ConceptBank | None = None
    coefficients: Tensor | None = None


def one_pass(
    model: nn.Module,
    layer: str,
    groups: Sequence[Tensor],
    factorize: Factorize,
    *,
    layout: LayoutLike = None,
    grad: bool = True,
) -> Found:
    """Run every group once, factorize in the last one's hook, and score the concepts there.

    Args:
        model: a model whose output is, or starts with, logits (n, classes).
        layer: dotted name of the target layer.
        groups: inputs (n, 3, height, width), one for each input size.
        factorize: from A (pixels of all groups, channels) to the concepts and W (pixels, k).
        layout: see :func:`dff.activations.intercept`.
        grad: keep what Grad-CAM needs.

    Raises:
        DFFError: what `intercept` and `factorize` raise.
        ModelError: the model failed; its own error is the cause.
    """
    progress = _Progress()

    def capture(maps: Tensor) -> None:
        progress.maps.append(maps)

    def factorize_and_append(maps: Tensor) -> Appended:
        capture(maps)
        with torch.no_grad():
            progress.bank, progress.coefficients = factorize(checked_rows(progress.maps, layer))
            return Appended(_spread(progress.bank, maps))

    outputs = [_run(model, layer, x, capture, layout, grad) for x in groups[:-1]]
    last, concept_logits = _scored(
        model, layer, groups[-1], factorize_and_append, progress, layout, grad
    )
    outputs.append(last)
    assert progress.bank is not None
    assert progress.coefficients is not None
    return Found(
        progress.bank,
        unflatten(progress.coefficients, progress.maps),
        [Tape(maps, logits) for maps, logits in zip(progress.maps, outputs, strict=True)],
        concept_logits,
    )


def _scored(
    model: nn.Module,
    layer: str,
    x: Tensor,
    append: Callable[[Tensor], Appended],
    progress: _Progress,
    layout: LayoutLike,
    grad: bool,
) -> tuple[Tensor, Tensor]:
    """Return the logits of a group and of the concepts, in one pass where the model allows it.

    A model that cannot take a changed batch halfway says so by an error, or by an output of
    another length; then the concepts get a pass of their own.
    """
    try:
        output = _run(model, layer, x, append, layout, grad)
        if progress.bank is not None and len(output) == len(x) + len(progress.bank):
            return output[: len(x)], output[len(x) :].detach()
    except ModelError:
        if progress.bank is None:
            raise
    bank = progress.bank
    assert bank is not None
    seen = progress.maps.pop()

    def capture(maps: Tensor) -> None:
        progress.maps.append(maps)

    output = _run(model, layer, x, capture, layout, grad)
    repeated = x[:1].expand(len(bank), *x.shape[1:])
    concepts = _spread(bank, seen.detach())
    return output, _run(model, layer, repeated, lambda maps: concepts, layout, False)


def _run(
    model: nn.Module,
    layer: str,
    x: Tensor,
    fn: Callable[[Tensor], Tensor | Appended | None],
    layout: LayoutLike,
    grad: bool,
) -> Tensor:
    """Intercept, with the model's own errors explained."""
    try:
        return main_tensor(intercept(model, layer, fn, x, grad=grad, layout=layout))
    except DFFError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the model failed on an input of shape {tuple(x.shape)}: {reason}"
        ) from error


def _spread(bank: ConceptBank, maps: Tensor) -> Tensor:
    """Lay each concept at full presence over the grid: (k, channels, rows, cols)."""
    concepts = bank.at_full_presence.to(maps)
    return concepts[:, :, None, None].expand(-1, -1, *maps.shape[2:])


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

"""From activations to a concept bank: how many concepts, which factorization, full presence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dff.bank import ConceptBank, full_presence
from dff.errors import UsageError
from dff.nmf import NMF, SemiNMF
from dff.selection import Selection, choose_components

__all__ = ["AUTO", "Concepts", "factorize", "select", "stacked"]

AUTO = range(2, 13)
"""The numbers of concepts that "auto" chooses from, as far as the activations allow."""

Concepts = int | str | range


def factorize(
    rows: Tensor, concepts: Concepts, *, model: str = "", layer: str = ""
) -> tuple[ConceptBank, Tensor]:
    """Factorize A: NMF where it is non-negative, semi-NMF where it has both signs.

    Args:
        rows: A (pixels, channels).
        concepts: k, from 1 to min(pixels, channels); "auto", or a range to choose k from
            (:func:`dff.selection.choose_components`).
        model: name of the model, for the bank.
        layer: name of the layer, for the bank.

    Returns:
        The concepts, by the share of ‖A‖² that each explains, and W (pixels, k).

    Raises:
        UsageError: more concepts than the activations can hold, or no number.
    """
    if not isinstance(concepts, (int, np.integer)):
        concepts = select(rows, concepts, layer=layer).chosen
    if concepts > min(rows.shape):
        raise UsageError(
            f"{concepts} concepts were asked for, but layer {layer!r} gives {rows.shape[0]} cells "
            f"x {rows.shape[1]} channels here: at most {min(rows.shape)}"
        )
    signed = bool(rows.min() < 0)
    estimator = (SemiNMF if signed else NMF)(int(concepts))
    coefficients = estimator.fit_transform(rows)
    bank = ConceptBank(
        components=estimator.components_,
        scale=full_presence(coefficients),
        shares=torch.as_tensor(estimator.explained_share_, dtype=torch.float32),
        rest=float(estimator.rest_share_),
        model=model,
        layer=layer,
        signed=signed,
    )
    return bank, coefficients


def select(rows: Tensor, counts: str | range, *, layer: str = "") -> Selection:
    """Sweep A over numbers of concepts; "auto" is 2 to 12, as far as the activations allow.

    Raises:
        UsageError: no range, or more concepts than halves of the activations can show.
    """
    most = min(rows.shape[0] // 2, rows.shape[1])
    if isinstance(counts, str):
        if counts != "auto":
            raise UsageError(f"concepts is a whole number, a range, or 'auto', not {counts!r}")
        counts = range(AUTO.start, min(AUTO.stop, most + 1))
        if not counts:
            counts = range(1, 2)
    if max(counts, default=0) > most:
        raise UsageError(
            f"{max(counts)} concepts are too many to choose from: layer {layer!r} gives "
            f"{rows.shape[0]} cells x {rows.shape[1]} channels here, which allow {most} at most"
        )
    return choose_components(rows, counts)


def stacked(
    found: Selection, rows: Tensor, *, model: str, layer: str
) -> tuple[ConceptBank, Tensor]:
    """Return the concepts of every k of a sweep as one bank, and their coefficients in A.

    The k concepts of each number stand together, in the order of ``found.counts``; A is encoded
    in each number's concepts on their own.
    """
    signed = bool(rows.min() < 0)
    solver = SemiNMF if signed else NMF
    coefficients = []
    for k, components in zip(found.counts, found.components, strict=True):
        estimator = solver(k)
        estimator.components_ = torch.as_tensor(components).to(rows)
        estimator.n_features_in_ = rows.shape[1]
        coefficients.append(estimator.transform(rows))
    together = torch.cat(coefficients, 1)
    bank = ConceptBank(
        components=torch.cat([torch.as_tensor(c).to(rows) for c in found.components]),
        scale=full_presence(together),
        shares=torch.as_tensor(np.concatenate(found.shares), dtype=torch.float32),
        rest=0.0,
        model=model,
        layer=layer,
        signed=signed,
    )
    return bank, together

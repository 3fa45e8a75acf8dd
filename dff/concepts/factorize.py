"""From activations to a concept bank: which factorization, its order, full presence.

Notation: A (pixels x channels) ~= W (pixels x concepts) · H (concepts x channels). Concepts come
by the share of the cells that each explains, largest first, as every factorizer of :mod:`dff.nmf`
gives them; full presence is read off W (:func:`dff.concepts.bank.full_presence`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.concepts.bank import ConceptBank
from dff.concepts.selection import Selection, choose_components
from dff.concepts.solver import RIDGE, cell_lengths, encode, fit
from dff.concepts.unions import union_tensors, unions
from dff.errors import UsageError, closest
from dff.maps import full_presence
from dff.nmf.fitting import Progress

__all__ = [
    "AUTO",
    "FACTORIZERS",
    "Concepts",
    "Factorizer",
    "bank_from",
    "check_factorizer",
    "factorize",
    "joined",
    "most_concepts",
    "select",
    "sweep_banks",
]

AUTO = range(2, 13)
"""The numbers of concepts that "auto" chooses from, as far as the activations allow."""

Concepts = int | str | range
Factorizer = Any
"""A factorizer of :mod:`dff.nmf`, or a scikit-learn estimator (:func:`dff.nmf.as_factorizer`)."""


# scikit-learn is heavy, and seldom asked for: its estimators are imported when they are named.


def _estimator(name: str, **options: float) -> Factorizer:
    from dff import nmf

    return getattr(nmf, name)(**options)


def _k_means() -> Factorizer:
    from sklearn.cluster import KMeans

    return KMeans(n_init=4, random_state=0)


FACTORIZERS: dict[str, Callable[[], Factorizer]] = {
    "nmf": partial(_estimator, "NMF"),
    "semi-nmf": partial(_estimator, "SemiNMF", ridge=RIDGE),
    "offset-nmf": partial(_estimator, "OffsetNMF"),
    "k-means": _k_means,
}
"""The factorizers that have a name."""


def check_factorizer(factorizer: str | Factorizer | None) -> Factorizer | None:
    """Return the factorizer of a name, or the one given; None (the sign decides) stays None.

    Raises:
        UsageError: no such name, or nothing that can give codes and components.
    """
    if factorizer is None:
        return None
    from dff.nmf import as_factorizer

    if not isinstance(factorizer, str):
        return as_factorizer(factorizer)
    if factorizer not in FACTORIZERS:
        hint = closest(factorizer, FACTORIZERS) or "; choose from " + ", ".join(FACTORIZERS)
        raise UsageError(f"there is no factorizer {factorizer!r}{hint}")
    return as_factorizer(FACTORIZERS[factorizer]())


def factorize(
    rows: Tensor,
    concepts: Concepts,
    *,
    factorizer: Factorizer | None = None,
    model: str = "",
    layer: str = "",
) -> tuple[ConceptBank, Tensor]:
    """Factorize A: NMF where it is non-negative, semi-NMF where it has both signs.

    Every cell counts alike (see :mod:`dff.concepts.solver`), and so do the shares.

    Args:
        rows: A (pixels, channels).
        concepts: k, from 1 to min(pixels, channels); "auto", or a range to choose k from
            (:func:`dff.concepts.choose_components`).
        factorizer: what takes the place of NMF and semi-NMF; not changed. One with an offset, and
            scikit-learn's, get the cells as they are.
        model: name of the model, for the bank.
        layer: name of the layer, for the bank.

    Returns:
        The concepts, by the share of the cells that each explains, and W (pixels, k).

    Raises:
        UsageError: more concepts than the activations can hold, or no number; a factorizer whose
            coefficients are negative.
        FactorizationError: the factorizer refuses the activations.
    """
    if not isinstance(concepts, (int, np.integer)):
        concepts = select(rows, concepts, layer=layer).chosen
    if concepts > min(rows.shape):
        raise UsageError(
            f"{concepts} concepts were asked for, but layer {layer!r} gives {rows.shape[0]} cells "
            f"x {rows.shape[1]} channels here: at most {min(rows.shape)}"
        )
    if factorizer is not None:
        from dff.nmf import as_factorizer

        return _by(as_factorizer(factorizer, int(concepts)), rows, model, layer)
    estimator, coefficients, signed = fit(rows, int(concepts))
    bank = bank_from(estimator, coefficients, signed=signed, model=model, layer=layer)
    return bank, coefficients


def _by(factorizer: Factorizer, rows: Tensor, model: str, layer: str) -> tuple[ConceptBank, Tensor]:
    """Factorize A by a factorizer of the user's; NMF and semi-NMF count every cell alike."""
    from dff import nmf

    lengths = cell_lengths(rows) if type(factorizer) in (nmf.NMF, nmf.SemiNMF) else 1.0
    coefficients = factorizer.fit_transform(rows / lengths) * lengths
    if bool((coefficients < 0).any()):
        inner = getattr(factorizer, "estimator", factorizer)
        raise UsageError(
            f"{type(inner).__name__} gives negative coefficients, but a concept is present or "
            "absent, never less; use NMF, SemiNMF, OffsetNMF or KMeans"
        )
    signed = bool((torch.as_tensor(factorizer.components_) < 0).any())
    bank = bank_from(factorizer, coefficients, signed=signed, model=model, layer=layer)
    return bank, coefficients


def bank_from(
    fitted: Factorizer, coefficients: Tensor, *, signed: bool, model: str = "", layer: str = ""
) -> ConceptBank:
    """Return the concepts of a fitted factorization as a bank, on the coefficients' device.

    Args:
        fitted: with ``components_``, ``explained_share_``, ``rest_share_`` as
            :class:`dff.nmf.NMF` has them, and ``offset_`` where there is one.
        coefficients: W (pixels, k) of all that it was fitted on.
        signed: the concepts have both signs.
        model: name of the model.
        layer: name of the layer.
    """
    offset = torch.as_tensor(getattr(fitted, "offset_", 0)).to(coefficients)
    components = torch.as_tensor(fitted.components_).to(coefficients)
    together = unions(coefficients, components)
    scale, likeness = union_tensors(coefficients, components, together)
    return ConceptBank(
        components=components,
        scale=full_presence(coefficients),
        shares=torch.as_tensor(fitted.explained_share_, dtype=torch.float32),
        rest=float(fitted.rest_share_),
        model=model,
        layer=layer,
        signed=signed,
        offset=offset if bool(offset.any()) else None,
        unions=together,
        union_scale=scale,
        union_likeness=likeness,
    )


def most_concepts(concepts: Concepts) -> int:
    """Return the k that must be possible: itself, the largest of a range, the least of "auto".

    Raises:
        UsageError: it is none of these, or below 1.
    """
    if isinstance(concepts, str) and concepts == "auto":
        return AUTO.start
    counts = concepts if isinstance(concepts, range) else range(0)
    if isinstance(concepts, int) and not isinstance(concepts, bool):
        counts = range(concepts, concepts + 1)
    if not counts or min(counts) < 1:
        raise UsageError(
            f"concepts is a whole number from 1 on, a range, or 'auto', not {concepts!r}"
        )
    return max(counts)


def select(
    rows: Tensor, counts: str | range, *, layer: str = "",
    progress: Progress = lambda done, total: None,
) -> Selection:  # fmt: skip
    """Sweep A over numbers of concepts; "auto" is 2 to 12, as far as the activations allow.

    `progress` is called with (fits made, of how many).

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
    return choose_components(rows / cell_lengths(rows), counts, progress=progress)


def sweep_banks(
    selection: Selection, rows: Tensor, *, model: str = "", layer: str = ""
) -> tuple[list[ConceptBank], list[Tensor]]:
    """Return the bank of every k of a sweep over A, and A's coefficients W (pixels, k) in each.

    Concepts that stay from one k to the next keep their colours.
    """
    signed = bool(rows.min() < 0)
    banks, coefficients = [], []
    for components, shares, explained in zip(
        selection.components, selection.shares, selection.explained, strict=True
    ):
        embeddings = torch.as_tensor(components).to(rows)
        coefficients.append(encode(rows, embeddings, signed=signed))
        banks.append(
            ConceptBank(
                components=embeddings,
                scale=full_presence(coefficients[-1]),
                shares=torch.as_tensor(shares, dtype=torch.float32),
                rest=max(0.0, 1 - float(explained)),
                model=model,
                layer=layer,
                signed=signed,
            )
        )
    for at, step in enumerate(selection.branches):
        banks[at + 1] = replace(banks[at + 1], rgb=step.inherited(banks[at].rgb))
    return banks, coefficients


def joined(banks: Sequence[ConceptBank]) -> ConceptBank:
    """Return the concepts of several banks of one layer as one bank, in the order given."""
    return ConceptBank(
        components=torch.cat([bank.components for bank in banks]),
        scale=torch.cat([bank.scale for bank in banks]),
        shares=torch.cat([bank.shares for bank in banks]),
        rest=0.0,
        model=banks[0].model,
        layer=banks[0].layer,
        signed=banks[0].signed,
    )

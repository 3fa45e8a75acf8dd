"""From activations to a concept bank: the choice of factorization, and full presence."""

from __future__ import annotations

import torch
from torch import Tensor

from dff.bank import ConceptBank, full_presence
from dff.errors import UsageError
from dff.nmf import NMF, SemiNMF

__all__ = ["factorize"]


def factorize(
    rows: Tensor, concepts: int, *, model: str = "", layer: str = ""
) -> tuple[ConceptBank, Tensor]:
    """Factorize A: NMF where it is non-negative, semi-NMF where it has both signs.

    Args:
        rows: A (pixels, channels).
        concepts: k, from 1 to min(pixels, channels).
        model: name of the model, for the bank.
        layer: name of the layer, for the bank.

    Returns:
        The concepts, by the share of ‖A‖² that each explains, and W (pixels, k).

    Raises:
        UsageError: more concepts than the activations can hold.
    """
    if concepts > min(rows.shape):
        raise UsageError(
            f"{concepts} concepts were asked for, but layer {layer!r} gives {rows.shape[0]} cells "
            f"x {rows.shape[1]} channels here: at most {min(rows.shape)}"
        )
    signed = bool(rows.min() < 0)
    estimator = (SemiNMF if signed else NMF)(concepts)
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

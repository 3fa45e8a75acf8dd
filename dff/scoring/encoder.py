"""A model up to a layer and its concepts, as a module from images to coefficients.

Notation: a row a of A (pixels x channels) ~= w·H, H (concepts x channels). Its coefficients w are
the minimum of ‖a - wH‖² over w >= 0. Let S be the concepts that are present, w_S > 0. As long as a
moves so little that S stays, w is the minimum of plain least squares on S,

    w_S = (H_S H_Sᵀ)⁻¹ H_S a,   and 0 elsewhere:

the encoding is linear in a piece by piece, and that matrix is its derivative wherever a does not
lie on an edge between two pieces, that is almost everywhere. The solver's steps are not recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dff.activations import STOP, Answer, LayoutLike, intercept, resolve_layer
from dff.activations.borrowing import plainly
from dff.activations.failures import model_errors
from dff.concepts import ConceptBank

__all__ = ["ConceptEncoder", "encoded"]

RIDGE = 1e-10
"""Of the largest diagonal entry of H·Hᵀ: concepts that are the same twice share their gradient."""


def encoded(bank: ConceptBank, rows: Tensor) -> Tensor:
    """Return the bank's own encoding, differentiable.

    Args:
        bank: the concepts.
        rows: A (pixels, channels), float32 or float64.

    Returns:
        W (pixels, k) >= 0: the values of ``bank.encode(rows)``; with a gradient to `rows`, which
        can itself be differentiated, where gradients are on.

    Raises:
        BankError: another number of channels than the bank's.
    """
    with torch.no_grad():
        values = bank.encode(rows.detach()).clone()
    if not (torch.is_grad_enabled() and rows.requires_grad):
        return values
    above = rows if bank.offset is None else rows - bank.offset.to(rows)
    linear = _on_support(above if bank.signed else above.clamp_min(0), bank.components, values > 0)
    return values + (linear - linear.detach())


def _on_support(rows: Tensor, components: Tensor, support: Tensor) -> Tensor:
    """Return the least squares coefficients (pixels, k) of rows on their supports (pixels, k)."""
    h, present = components.to(rows).double(), support.double()
    gram = h @ h.T
    size = gram.diagonal().max().clamp_min(1e-300)
    normal = gram * present[:, :, None] * present[:, None]
    normal = normal + torch.diag_embed((1 - present) * size + RIDGE * size)
    cross = (rows.double() @ h.T) * present
    return torch.linalg.solve(normal, cross[..., None])[..., 0].to(rows.dtype)


class ConceptEncoder(nn.Module):
    """From images (n, channels, height, width) to how strong each concept is in them, (n, k).

    The strength is the mean coefficient over the cells: unlike the sum it does not grow with the
    image's size. What attributes to the input of a module (Captum's methods, say) so says which
    pixels make a concept. The model runs in evaluation mode up to the layer and no further, and
    is given back as it was; :class:`ConceptModule` is what comes after.

    Args:
        model: any module.
        layer: dotted name or module: the bank's.
        bank: the concepts.
        layout: see :func:`dff.activations.intercept`.

    Raises:
        BankError: the bank is for another layer.
        LayerError: no such layer.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        bank: ConceptBank,
        *,
        layout: LayoutLike = None,
    ) -> None:
        super().__init__()
        self.layer = resolve_layer(model, layer)[0]
        bank.check(bank.model, self.layer)
        self.model, self.bank, self.layout = model, bank, layout

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean coefficient (n, k) of each concept.

        Raises:
            BankError: another number of channels than the bank's.
            ModelError: the model failed; its own error is the cause.
        """
        return self.maps(images).mean((2, 3))

    def maps(self, images: Tensor) -> Tensor:
        """Return the coefficients W (n, k, rows, cols) at the layer's cells.

        With a gradient to the images where they require it and gradients are on.
        """
        whole = torch.is_grad_enabled()
        with model_errors(self.model, images):
            return plainly(lambda: self._maps(images, whole), grad=whole)

    def _maps(self, images: Tensor, whole: bool) -> Tensor:
        seen: list[Tensor] = []

        def capture(maps: Tensor) -> Answer:
            seen.append(maps)
            return STOP

        intercept(self.model, self.layer, capture, images, whole=whole, layout=self.layout)
        maps = seen[0] if seen[0].dtype == torch.float64 else seen[0].float()
        count, channels, *grid = maps.shape
        rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
        return encoded(self.bank, rows).unflatten(0, (count, *grid)).permute(0, 3, 1, 2)

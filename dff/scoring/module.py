"""The rest of a model as a module from coefficients to logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dff.activations.tail import Tail
from dff.concepts import ConceptBank
from dff.errors import UsageError

__all__ = ["ConceptModule", "rebuild"]


def rebuild(coefficients: Tensor, components: Tensor, rest: Tensor | None = None) -> Tensor:
    """Return the maps W·H + rest of coefficients.

    Args:
        coefficients: (m, k, rows, cols).
        components: H (k, channels).
        rest: (channels, rows, cols) what no concept explains; None is nothing.

    Returns:
        (m, channels, rows, cols).
    """
    maps = torch.einsum("mkhw,kc->mchw", coefficients, components.to(coefficients))
    return maps if rest is None else maps + rest.to(maps)


class ConceptModule(nn.Module):
    """A model seen from its concepts: coefficients (m, k, rows, cols) in, logits (m, classes) out.

    Every algorithm that attributes to the input of a module (Captum's, say) so attributes to
    concepts. The modules that run after the layer are its submodules (those that run once), so
    that algorithms which change the gradient of non-linear modules (DeepLift) find them; move
    and train the model itself, not this view of it.

    Args:
        tail: the rest of the model (:class:`~dff.scoring.Tail`).
        bank: the concepts, or H (k, channels).
        rest: (channels, rows, cols) what is added to W·H: the part of the image's activations
            that no concept explains, for logits that are the model's own. None adds nothing.
        item: the image of the tail that supplies what does not pass through the layer.

    Raises:
        BankError: the bank is for another layer.
    """

    components: Tensor
    rest: Tensor | None

    def __init__(
        self,
        tail: Tail,
        bank: ConceptBank | Tensor,
        *,
        rest: Tensor | None = None,
        item: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(bank, ConceptBank):
            bank.check(bank.model, tail.layer)
        components = bank.components if isinstance(bank, ConceptBank) else bank
        self.tail = tail
        self.item = item
        self.register_buffer("components", components.detach().to(tail.inputs.device))
        self.register_buffer("rest", None if rest is None else rest.detach())
        self.after = nn.ModuleList(tail.modules())

    def forward(self, coefficients: Tensor) -> Tensor:
        """Return logits (m, classes).

        Raises:
            UsageError: coefficients of another shape than (m, k, rows, cols).
        """
        if coefficients.dim() != 4 or coefficients.shape[1] != len(self.components):
            raise UsageError(
                f"expected coefficients (m, {len(self.components)}, rows, cols), got "
                f"{tuple(coefficients.shape)}"
            )
        return self.tail(rebuild(coefficients, self.components, self.rest), self.item)

"""The call of pytorch-grad-cam's concept tutorial, with its arguments and its return values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from dff.activations import STOP, Answer, LayoutLike, intercept, resolve_layer
from dff.activations.borrowing import borrowed
from dff.concepts import factorize
from dff.errors import UsageError
from dff.explain.one_pass import checked_rows, unflatten
from dff.maps import presence, upsample

__all__ = ["DeepFeatureFactorization"]


class DeepFeatureFactorization:
    """Concepts of a layer, as in pytorch-grad-cam's tutorial with the import changed.

    What differs: the pass ends at the layer, no gradient is recorded, the model is given back as
    it was, maps compare across the batch (1 is full presence), and concepts enter
    `computation_on_concepts` at full presence, so that their scores do not depend on the
    arbitrary scale of a factorization.

    Args:
        model: any module.
        target_layer: the layer, as a module or by dotted name.
        reshape_transform: how to read its output as maps; None recognises it.
        computation_on_concepts: from concepts (k, channels) to scores, such as ``model.fc``.

    Raises:
        LayerError: the layer is not the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str,
        reshape_transform: LayoutLike = None,
        computation_on_concepts: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.target_layer, _ = resolve_layer(model, target_layer)
        self.reshape_transform = reshape_transform
        self.computation_on_concepts = computation_on_concepts

    def __call__(
        self, input_tensor: Tensor, n_components: int = 16
    ) -> tuple[np.ndarray, list[np.ndarray]] | tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Find the concepts that a batch shares.

        Args:
            input_tensor: (batch, 3, height, width), normalised as the model expects.
            n_components: k, the number of concepts.

        Returns:
            concepts (channels, k); explanations, for each image (k, height, width) in [0, 1];
            and, if there is a computation on concepts, its result (k, ...).

        Raises:
            UsageError: more concepts than cells or channels, or fewer than one.
            FactorizationError: activations with NaN, or all zero.
        """
        if n_components < 1:
            raise UsageError(f"n_components is a whole number from 1 on, not {n_components!r}")
        seen: list[Tensor] = []

        def capture(maps: Tensor) -> Answer:
            seen.append(maps)
            return STOP

        intercept(
            self.model, self.target_layer, capture, input_tensor, layout=self.reshape_transform
        )
        bank, coefficients = factorize(
            checked_rows(seen, self.target_layer), n_components, layer=self.target_layer
        )
        size = (int(input_tensor.shape[2]), int(input_tensor.shape[3]))
        cells = presence(unflatten(coefficients, seen)[0].cpu(), bank.scale.cpu()).numpy()
        concepts = bank.components.T.cpu().numpy()
        explanations = list(upsample(cells, size))
        computation = self.computation_on_concepts
        if computation is None:
            return concepts, explanations
        full = bank.at_full_presence.to(seen[0])
        outputs = borrowed(self.model, lambda: computation(full))
        return concepts, explanations, outputs.float().cpu().numpy()

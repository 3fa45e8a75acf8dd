"""Concepts that are kept: embeddings, scale, names and where they came from.

Notation: A (pixels x channels) ~= W (pixels x concepts) · H (concepts x channels).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dff.errors import BankError
from dff.files import write_file
from dff.nmf import NMF, SemiNMF
from dff.rendering import colors

__all__ = ["ConceptBank", "full_presence"]

FORMAT = "dff-concept-bank-1"


def full_presence(coefficients: Tensor, *, quantile: float = 0.99) -> Tensor:
    """Return the coefficient at which each concept counts as wholly present.

    A high quantile of the positive coefficients over the data: unlike a maximum it does not hang
    on one pixel, and pixels without the concept, however many, do not lower it.

    Args:
        coefficients: W (pixels, k).
        quantile: in (0, 1].

    Returns:
        (k,), 0 for a concept that never occurs.
    """
    present = torch.where(coefficients > 0, coefficients, torch.nan).T.contiguous()
    if present.shape[1] > 2**23:  # torch.quantile's limit; a uniform sample serves
        present = present[:, :: present.shape[1] // 2**22]
    return torch.nanquantile(present, quantile, dim=1).nan_to_num(0)


@dataclass(frozen=True, eq=False)
class ConceptBank:
    """Concepts found by a factorization.

    Attributes:
        components: H (k, channels) float32.
        scale: (k,) full presence: the coefficient at which a heatmap reads 1.
        shares: (k,) the share of ‖A‖² that each concept explains, in the data it was fitted on.
        rest: the share that no concept explains.
        model: name of the model, as in "resnet50".
        layer: dotted name of the layer.
        signed: the components have both signs (semi-NMF).
        names: (k,) names for people.
    """

    components: Tensor
    scale: Tensor
    shares: Tensor
    rest: float
    model: str
    layer: str
    signed: bool = False
    names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("components", "scale", "shares"):
            tensor = getattr(self, name).detach()
            # A tensor of inference mode could not take part in gradients.
            object.__setattr__(self, name, tensor.clone() if tensor.is_inference() else tensor)
        if not self.names:
            names = tuple(f"Concept {i + 1}" for i in range(len(self)))
            object.__setattr__(self, "names", names)

    def __len__(self) -> int:
        return len(self.components)

    @property
    def colors(self) -> np.ndarray:
        """uint8 (k, 3) RGB: the palette in the order of the concepts."""
        return colors(len(self))

    @property
    def at_full_presence(self) -> Tensor:
        """(k, channels): the activations of a pixel that wholly is one concept."""
        return self.components * self.scale[:, None]

    def encode(self, rows: Tensor) -> Tensor:
        """Return the coefficients W (n, k) >= 0 of activations (n, channels): least squares.

        Raises:
            BankError: another number of channels than the bank's.
        """
        if rows.shape[1] != self.components.shape[1]:
            raise BankError(
                f"the bank's concepts have {self.components.shape[1]} channels ({self.model}, "
                f"layer {self.layer}), the activations {rows.shape[1]}: use the model and layer "
                "it was made with"
            )
        solver = (SemiNMF if self.signed else NMF)(len(self))
        solver.components_ = self.components.to(rows)
        solver.n_features_in_ = rows.shape[1]
        if not self.signed:
            rows = rows.clamp_min(0)
        return solver.transform(rows)

    def renamed(self, names: dict[int, str]) -> ConceptBank:
        """Return the bank with other names for some concepts (counted from 0)."""
        return replace(self, names=tuple(names.get(i, old) for i, old in enumerate(self.names)))

    def save(self, path: str | Path) -> Path:
        """Write the bank as safetensors, whole or not at all."""
        tensors = {
            "components": self.components.detach().cpu().contiguous(),
            "scale": self.scale.detach().cpu().contiguous(),
            "shares": self.shares.detach().cpu().contiguous(),
        }
        about: dict[str, Any] = {
            "format": FORMAT,
            "model": self.model,
            "layer": self.layer,
            "signed": self.signed,
            "rest": self.rest,
            "names": self.names,
        }
        # One entry of metadata: safetensors writes several in no fixed order, and the same bank
        # is to have the same bytes.
        return write_file(path, save(tensors, {"concept_bank": json.dumps(about)}))

    @classmethod
    def load(cls, path: str | Path) -> ConceptBank:
        """Read a bank.

        Raises:
            BankError: the file is missing, damaged, or not a concept bank.
        """
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get("concept_bank", "{}"))
                if facts.pop("format", None) != FORMAT:
                    raise BankError(f"{str(path)!r} is not a concept bank of this version")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise BankError(f"cannot read the concept bank {str(path)!r}: {error}") from None
        return cls(**tensors, **{**facts, "names": tuple(facts["names"])})

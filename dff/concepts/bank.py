"""Concepts that are kept: embeddings, scale, names and where they came from.

Notation: A (pixels x channels) ~= W (pixels x concepts) · H (concepts x channels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.concepts.bank_file import damaged, is_bank, packed, unpacked
from dff.concepts.solver import encode
from dff.concepts.titles import titles
from dff.concepts.tree import RGB, as_tuples
from dff.concepts.unions import union_names, union_presence
from dff.concepts.validation import FACTS, TENSORS, check_facts, check_tensors, check_unions
from dff.errors import BankError, UsageError, shortened
from dff.files import write_file
from dff.maps import presence
from dff.rendering import colors
from dff.report import bank_table
from dff.version import __version__

__all__ = ["LEVELS", "ConceptBank", "Nearest", "check_level"]

LEVELS = ("object", "part")


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each concept of a bank the one of another that is most like it.

    Attributes:
        index: (k,) integer, the other bank's concept.
        similarity: (k,) cosine of the two embeddings, in [-1, 1].
        cosines: (k, other k) all of them.
    """

    index: Tensor
    similarity: Tensor
    cosines: Tensor


def check_level(level: str) -> None:
    """Refuse what is no level of the concept tree, with a UsageError."""
    if level not in LEVELS:
        raise UsageError(f"level is one of {', '.join(LEVELS)}, not {level!r}")


@dataclass(frozen=True, eq=False)
class ConceptBank:
    """Concepts found by a factorization.

    Attributes:
        components: H (k, channels) float32.
        scale: (k,) full presence: the coefficient at which a heatmap reads 1.
        shares: (k,) the share of ‖A‖² that each concept explains in the data it was fitted on, the
            mean over its cells, each of which counts alike.
        rest: the share that no concept explains.
        model: name of the model, as in "resnet50".
        layer: dotted name of the layer.
        signed: the components have both signs (semi-NMF).
        names: (k,) names for people.
        rgb: (k,) colours, 0 to 255 each; they stay with their concepts.
        versions: of the packages that made it.
        offset: (channels,) what the factorization sets its concepts upon (A ~= offset + W·H), no
            part of any concept; None is nothing.
        unions: the members of each union of concepts that belong together, counted from 0, from
            small to large, and of one (:func:`dff.concepts.unions.unions`): objects.
        union_scale: (unions,) full presence of each union: of the sum of its coefficients.
        union_likeness: (unions, k + 1) how alike cells are to each union
            (:func:`dff.concepts.unions.union_tensors`); None in banks of before.
        recipe: how the model is built by its name (:attr:`dff.models.LoadedModel.recipe`); empty
            where that is not known.
    """

    components: Tensor
    scale: Tensor
    shares: Tensor
    rest: float
    model: str
    layer: str
    signed: bool = False
    names: tuple[str, ...] = field(default=())
    rgb: tuple[RGB, ...] = field(default=(), repr=False)
    versions: dict[str, str] = field(default_factory=lambda: _versions(), repr=False)
    offset: Tensor | None = field(default=None, repr=False)
    unions: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    union_scale: Tensor | None = field(default=None, repr=False)
    union_likeness: Tensor | None = field(default=None, repr=False)
    recipe: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("components", "scale", "shares"):
            tensor = getattr(self, name).detach()
            # A tensor of inference mode could not take part in gradients.
            object.__setattr__(self, name, tensor.clone() if tensor.is_inference() else tensor)
        if not self.names:
            names = tuple(f"Concept {i + 1}" for i in range(len(self)))
            object.__setattr__(self, "names", names)
        if not self.rgb:
            object.__setattr__(self, "rgb", as_tuples(colors(len(self))))
        for what, count in (("names", len(self.names)), ("colours", len(self.rgb))):
            if count != len(self):
                raise BankError(f"the bank has {len(self)} concepts, but {count} {what}")
        check_tensors({name: getattr(self, name) for name in TENSORS}, signed=self.signed)
        check_facts({name: getattr(self, name) for name in FACTS})
        check_unions(self.unions, self.union_scale, self.union_likeness, len(self))

    def __repr__(self) -> str:
        names = ", ".join(repr(shortened(name, 30)) for name in self.names[:4])
        more = ", …" if len(self) > 4 else ""
        of = f"{shortened(self.model, 60)} at {shortened(self.layer, 60)!r}"
        return f"ConceptBank({len(self)} concepts of {of}: {names}{more})"

    def _repr_html_(self) -> str:
        colors = ["#" + bytes(color).hex() for color in self.rgb]
        rows = zip(titles(self.names), colors, self.shares.tolist(), strict=True)
        return bank_table(f"{len(self)} concepts of {self.model}, layer {self.layer}", rows)

    def __len__(self) -> int:
        return len(self.components)

    @property
    def colors(self) -> np.ndarray:
        """uint8 (k, 3) RGB."""
        return np.array(self.rgb, dtype=np.uint8).reshape(-1, 3)

    @property
    def at_full_presence(self) -> Tensor:
        """(k, channels): the activations of a pixel that wholly is one concept."""
        return self.components * self.scale[:, None]

    def nodes(self, level: str = "object") -> tuple[tuple[int, ...], ...]:
        """Return the members of each node of the concept tree, counted from 0.

        Args:
            level: "part" is the concepts; "object" is the unions after them.

        Raises:
            UsageError: no such level.
        """
        check_level(level)
        concepts = tuple((k,) for k in range(len(self)))
        return concepts + self.unions if level == "object" else concepts

    def node_names(self, level: str = "object") -> tuple[str, ...]:
        """Return the name of each node: that of its concept, or those of a union's, joined."""
        return self.names + union_names(self.names, self.nodes(level)[len(self) :])

    def presence(self, coefficients: Tensor, *, level: str = "part", most: float = 1) -> Tensor:
        """Return how present each node is, (…, nodes, rows, cols) in [0, `most`].

        Args:
            coefficients: W as (…, k, rows, cols).
            level: as in :meth:`nodes`.
            most: as in :func:`dff.maps.presence`.
        """
        maps = presence(coefficients, self.scale.to(coefficients), most=most)
        unions = self.nodes(level)[len(self) :]
        if not unions or self.union_scale is None:
            return maps
        how = self.union_scale, self.union_likeness
        return torch.cat([maps, union_presence(coefficients, unions, *how, most=most)], -3)

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
        above = rows if self.offset is None else rows - self.offset.to(rows)
        return encode(above, self.components, signed=self.signed)

    def check(self, model: str, layer: str) -> None:
        """Refuse another model or layer than the bank's; an unnamed model passes.

        Raises:
            BankError: both are named.
        """
        other_model = self.model and model and self.model != model
        if not other_model and (not self.layer or self.layer == layer):
            return
        advice = f"give layer={self.layer!r}" if not other_model else "use the bank's own"
        if other_model and self.layer == layer:
            advice += f", or, if it is the same network, bank.renamed(model={model!r})"
        raise BankError(
            f"the bank is for layer {self.layer!r} of {self.model!r}, not for layer {layer!r} of "
            f"{model!r}; {advice}"
        )

    def renamed(
        self, names: dict[int, str] | None = None, *, model: str | None = None
    ) -> ConceptBank:
        """Return the bank with other names for some concepts (counted from 0), or for its model.

        Names come to stand on one line.

        Raises:
            UsageError: there is no such concept, or a name is empty, a number, or taken.
        """
        given = {k: " ".join(name.split()) for k, name in (names or {}).items()}
        self._known(given)
        renamed = tuple(given.get(i, old) for i, old in enumerate(self.names))
        lower = [name.lower() for name in renamed]
        for name in given.values():
            if not name or name.isdigit() or lower.count(name.lower()) > 1:
                raise UsageError(
                    f"a name is not empty, no number, and not another concept's: {name!r}"
                )
        return replace(
            self,
            names=renamed,
            model=self.model if model is None else model,
            recipe=self.recipe if model is None else {},
        )

    def merged(self, concepts: Sequence[int], *, name: str | None = None) -> ConceptBank:
        """Return the bank with several concepts made one, at the place of the first.

        Its embedding at full presence is the mean of theirs, each weighted by the share that it
        explains; its share is their sum.

        Args:
            concepts: two or more, counted from 0.
            name: of the new one; None joins their names.

        Raises:
            UsageError: fewer than two, one twice, or there is no such concept.
        """
        chosen = list(concepts)
        self._known(chosen)
        if len(chosen) < 2 or len(set(chosen)) < len(chosen):
            raise UsageError(f"merging takes two or more different concepts, not {chosen}")
        shares = self.shares[chosen].to(self.components).clamp_min(0)
        weights = shares / shares.sum() if bool(shares.sum() > 0) else torch.ones_like(shares)
        mixture = weights / weights.sum() @ self.at_full_presence[chosen]
        length = mixture.norm()
        first, kept = chosen[0], [i for i in range(len(self)) if i not in chosen[1:]]
        components, scale, shared = self.components.clone(), self.scale.clone(), self.shares.clone()
        components[first] = mixture / length.clamp_min(1e-12)
        scale[first], shared[first] = length, self.shares[chosen].sum()
        joined = name or " + ".join(self.names[i] for i in chosen)
        names = [joined if i == first else self.names[i] for i in kept]
        return replace(
            self,
            components=components[kept],
            scale=scale[kept],
            shares=shared[kept],
            names=tuple(names),
            rgb=tuple(self.rgb[i] for i in kept),
            unions=(),
            union_scale=None,
            union_likeness=None,
        )

    def nearest(self, other: ConceptBank) -> Nearest:
        """Return for each concept the most alike of another bank, by the cosine of embeddings.

        Raises:
            BankError: the other bank is for another model or layer: their channels do not compare.
        """
        other.check(self.model, self.layer)
        ours, theirs = (
            torch.nn.functional.normalize(bank.components.float().cpu(), dim=1)
            for bank in (self, other)
        )
        if ours.shape[1] != theirs.shape[1]:
            raise BankError(
                f"banks of {ours.shape[1]} and {theirs.shape[1]} channels do not compare"
            )
        cosines = (ours @ theirs.T).clamp(-1, 1)
        similarity, index = cosines.max(1)
        return Nearest(index, similarity, cosines)

    def _known(self, concepts: Sequence[int] | dict[int, str]) -> None:
        for concept in concepts:
            if not 0 <= concept < len(self):
                raise UsageError(
                    f"there is no concept {concept}: the bank has 0 to {len(self) - 1}"
                )

    def save(self, path: str | Path) -> Path:
        """Write the bank as safetensors, whole or not at all; equal banks are equal bytes.

        Raises:
            OutputError: it cannot be written, or something that is no concept bank is there.
        """
        return write_file(path, self.to_bytes(), replace=is_bank(path))

    def to_bytes(self) -> bytes:
        """Return the file that :meth:`save` writes."""
        tensors = {name: getattr(self, name) for name in TENSORS}
        return packed(tensors, {name: getattr(self, name) for name in FACTS})

    @classmethod
    def load(cls, path: str | Path) -> ConceptBank:
        """Read a bank.

        Raises:
            BankError: the file is missing, damaged, or not a concept bank.
        """
        tensors, facts = unpacked(path)
        fields: dict[str, Any] = {**tensors, **facts}
        try:
            fields["names"] = tuple(fields["names"])
            fields["rgb"] = tuple((int(r), int(g), int(b)) for r, g, b in fields["rgb"])
            unions = fields.get("unions", ())
            fields["unions"] = tuple(tuple(map(int, union)) for union in unions)
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise BankError(damaged(path, error)) from None


def _versions() -> dict[str, str]:
    return {"deep-feature-factorization": __version__,
            "torch": torch.__version__}  # fmt: skip

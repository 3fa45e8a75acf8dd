"""The same photos in few and in many concepts, and how many there should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dff.bank import ConceptBank
from dff.explain.explanation import Explanation
from dff.explain.saving import file_names, json_text, png
from dff.files import Content
from dff.manifest import Manifest
from dff.rendering import TreeNode, concept_tree, curves, panel
from dff.selection import Selection

__all__ = ["Sweep", "output_names"]

THUMBNAIL, PALE = 96, 240


@dataclass(frozen=True, eq=False)
class Sweep:
    """What each number of concepts finds.

    Attributes:
        selection: the curve, the tree, and the number that the rule picks.
        explanations: for each number of ``selection.counts``, in order.
    """

    selection: Selection
    explanations: tuple[Explanation, ...]

    @classmethod
    def split(cls, explanation: Explanation, selection: Selection) -> Sweep:
        """Take apart an explanation in the concepts of every number, which stand together."""
        parts, start = [], 0
        for k, explained in zip(selection.counts, selection.explained, strict=True):
            one = slice(start, start + k)
            start += k
            together = explanation.bank
            bank = ConceptBank(
                components=together.components[one],
                scale=together.scale[one],
                shares=together.shares[one],
                rest=max(0.0, 1 - float(explained)),
                model=together.model,
                layer=together.layer,
                signed=together.signed,
            )
            parts.append(
                replace(
                    explanation,
                    bank=bank,
                    coefficients=tuple(c[one] for c in explanation.coefficients),
                    concept_logits=explanation.concept_logits[one],
                )
            )
        return cls(selection, tuple(parts))

    @property
    def chosen(self) -> Explanation:
        """The explanation with the number of concepts that the rule picks."""
        return self.explanations[self.selection.counts.index(self.selection.chosen)]

    def curve(self) -> Image.Image:
        """Draw explained share and stability over the number of concepts, the pick marked."""
        found = self.selection
        return curves(
            found.counts,
            {"explained share": found.explained.tolist(), "stability": found.stability.tolist()},
            xlabel="concepts",
            mark=found.chosen,
            mark_label=f"chosen: {found.chosen}",
        )

    def overlays(self, index: int = 0) -> Image.Image:
        """Draw the concepts of one photo for every number, side by side."""
        drawn = [
            (f"{len(one.bank)} concepts", np.asarray(one.overlay(index, with_legend=False)))
            for one in self.explanations
        ]
        rows = [np.asarray(panel(drawn[at : at + 4])) for at in range(0, len(drawn), 4)]
        width = max(row.shape[1] for row in rows)
        padded = [
            np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
            for row in rows
        ]
        return Image.fromarray(np.concatenate(padded))

    def tree(self, index: int = 0) -> Image.Image:
        """Draw which concept splits into which, each as the photo where it is present."""
        levels = []
        for depth, one in enumerate(self.explanations):
            branch = self.selection.branches[depth - 1] if depth else None
            pictures = _thumbnails(one, index)
            nodes = [
                TreeNode(
                    picture=picture,
                    color=one.bank.colors[k],
                    title=one.top_classes(k, top_k=1)[0].name if not one.unscored else f"{k + 1}",
                    parent=branch.parents[k] if branch else None,
                    overlap=float(branch.overlap[k, branch.parents[k]]) if branch else 1.0,
                )
                for k, picture in enumerate(pictures)
            ]
            levels.append((f"k = {len(nodes)}", nodes))
        return concept_tree(levels, tile=THUMBNAIL)

    def as_dict(self) -> dict[str, Any]:
        """Return the curve and the tree as plain data, for JSON."""
        found = self.selection
        return {
            "chosen": found.chosen,
            "reason": found.reason,
            "counts": list(found.counts),
            "explained": [round(float(v), 6) for v in found.explained],
            "stability": [round(float(v), 6) for v in found.stability],
            "parents": [list(branch.parents) for branch in found.branches],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``sweep.png`` (the curve), and for each photo NAME its overlays and its tree.

        Raises:
            OutputError: as of :func:`dff.explain.saving.save`.
        """
        names, manifest = file_names(self.chosen), Manifest(folder)
        manifest.check(output_names(names))
        files: dict[str, Content] = {"sweep.png": png(self.curve)}
        for index, name in enumerate(names):
            files[f"{name}_sweep.png"] = png(partial(self.overlays, index))
            files[f"{name}_tree.png"] = png(partial(self.tree, index))
        files["sweep.json"] = json_text(self.as_dict())
        return manifest.write(files)


def output_names(names: Sequence[str]) -> list[str]:
    """Return the names of all files that a sweep over photos of these names writes."""
    drawn = [f"{name}_{what}.png" for name in names for what in ("sweep", "tree")]
    return ["sweep.png", *drawn, "sweep.json"]


def _thumbnails(one: Explanation, index: int) -> Sequence[np.ndarray]:
    """Return for each concept the small photo, clear where the concept is, pale elsewhere."""
    pixels = one.pictures[index].pixels
    scale = 2 * THUMBNAIL / max(pixels.shape[:2])
    size = [max(1, round(side * scale)) for side in pixels.shape[:2]]
    small = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
    maps = one.heatmaps(index, (size[0], size[1]))
    clear = [0.2 + 0.8 * np.clip(1.5 * m[..., None], 0, 1) for m in maps]
    return [(small * one + PALE * (1 - one)).astype(np.uint8) for one in clear]

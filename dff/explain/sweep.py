"""The same photos in few and in many concepts, and how many there should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dff.concepts import Branch, ConceptBank, Selection
from dff.errors import shortened
from dff.explain.explanation import Explanation
from dff.explain.pages import NOTEBOOK_SIDE, photo_view
from dff.explain.questions.labels import photo_labels
from dff.explain.saving import Settings, file_names
from dff.explain.sheet import clear_where
from dff.files import Content, json_text
from dff.labels import short_name
from dff.manifest import Manifest
from dff.rendering import TreeNode, concept_tree, curves, panel
from dff.rendering.files import picture_bytes, png
from dff.report import Figure, PhotoPage, frame, photo_page

__all__ = ["Sweep", "drawn_curve", "output_names", "selection_facts"]

THUMBNAIL, ACROSS = 96, 4
MOST_TREES = 8  # in a page


@dataclass(frozen=True, eq=False)
class Sweep:
    """What each number of concepts finds.

    Attributes:
        selection: the curve, the tree, and the number that the rule picks.
        explanations: for each number of ``selection.counts``, in order.
    """

    selection: Selection
    explanations: tuple[Explanation, ...]

    def __repr__(self) -> str:
        counts, bank, photos = self.selection.counts, self.chosen.bank, len(self.chosen)
        of = f"{shortened(bank.model, 60)} at {shortened(bank.layer, 60)!r}"
        return (
            f"Sweep({photos} photo{'s' * (photos != 1)}, {counts[0]} to {counts[-1]} concepts of "
            f"{of}, {self.selection.chosen} chosen)"
        )

    @classmethod
    def split(
        cls, explanation: Explanation, selection: Selection, banks: Sequence[ConceptBank]
    ) -> Sweep:
        """Take apart an explanation in the concepts of several banks, which stand together."""
        parts, start = [], 0
        for bank in banks:
            part = slice(start, start + len(bank))
            start = part.stop
            shared = replace(explanation.shared, bank=bank, logits=explanation.concept_logits[part])
            photos = [photo.in_concepts(shared, part) for photo in explanation.photos]
            parts.append(Explanation(tuple(photos)))
        return cls(selection, tuple(parts))

    @property
    def chosen(self) -> Explanation:
        """The explanation with the number of concepts that the rule picks."""
        return self.explanations[self.selection.counts.index(self.selection.chosen)]

    def curve(self) -> Image.Image:
        """Draw explained share and stability over the number of concepts, the pick marked."""
        return drawn_curve(self.selection)

    def overlays(self, photo: int = 0) -> Image.Image:
        """Draw the concepts of one photo (from 0) for every number, side by side."""
        drawn = [
            (
                f"{len(explanation.bank)} concepts",
                np.asarray(explanation[photo].overlay(with_legend=False)),
            )
            for explanation in self.explanations
        ]
        rows = [
            np.asarray(panel(drawn[start : start + ACROSS]))
            for start in range(0, len(drawn), ACROSS)
        ]
        width = max(row.shape[1] for row in rows)
        padded = [
            np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
            for row in rows
        ]
        return Image.fromarray(np.concatenate(padded))

    def tree(self, photo: int = 0) -> Image.Image:
        """Draw which concept splits into which, each as the photo (from 0) where it is present."""
        branches = (None, *self.selection.branches)
        levels = [
            (f"k = {len(explanation.bank)}", _nodes(explanation, photo, branch))
            for explanation, branch in zip(self.explanations, branches, strict=True)
        ]
        return concept_tree(levels, tile=THUMBNAIL)

    def to_html(self) -> str:
        """Return a page to explore: the chosen concepts, the curve, and the tree of each photo."""
        return photo_page(self._view())

    def _view(self, **options: Any) -> PhotoPage:
        names = file_names(self.chosen.photos)[:MOST_TREES]
        figures = [
            Figure("Explained share and stability", self.curve(), self.selection.reason),
            *(Figure(f"Which concept splits into which: {name}", self.tree(i))
              for i, name in enumerate(names)),
        ]  # fmt: skip
        return photo_view(self.chosen.photos, figures=figures, **options)

    def _repr_html_(self) -> str:
        view = self._view(longest=NOTEBOOK_SIDE)
        return frame(photo_page(view), title=view.title)

    def _repr_png_(self) -> bytes:
        return picture_bytes(self.curve())

    def as_dict(self, *, settings: Settings = None) -> dict[str, Any]:
        """Return the curve and the tree as plain data, for JSON; concepts count from 1.

        `settings` as in :func:`dff.explain.saving.as_dict`.
        """
        return {**selection_facts(self.selection), "settings": dict(settings or {})}

    def save(self, folder: str | Path, *, settings: Settings = None) -> list[Path]:
        """Write ``sweep.png`` (the curve), for each photo NAME its overlays and its tree, and
        ``sweep.html``, a page to explore.

        Raises:
            OutputError: as of :func:`dff.explain.saving.save`.
        """
        names, manifest = file_names(self.chosen.photos), Manifest(folder)
        manifest.check(output_names(names))
        files: dict[str, Content] = {"sweep.png": png(self.curve)}
        for i, name in enumerate(names):
            files[f"{name}_sweep.png"] = png(partial(self.overlays, i))
            files[f"{name}_tree.png"] = png(partial(self.tree, i))
        files["sweep.html"] = self.to_html()
        files["sweep.json"] = json_text(self.as_dict(settings=settings))
        return manifest.write(files)


def drawn_curve(selection: Selection) -> Image.Image:
    """Draw explained share and stability over the number of concepts, the pick marked."""
    return curves(
        selection.counts,
        {
            "explained share": selection.explained.tolist(),
            "stability": selection.stability.tolist(),
        },
        xlabel="concepts",
        mark=selection.chosen,
        mark_label=f"chosen: {selection.chosen}",
    )


def selection_facts(selection: Selection) -> dict[str, Any]:
    """Return the curve and the tree as plain data, for JSON; concepts count from 1."""
    return {
        "chosen": selection.chosen,
        "reason": selection.reason,
        "counts": list(selection.counts),
        "explained": [round(float(v), 6) for v in selection.explained],
        "stability": [round(float(v), 6) for v in selection.stability],
        "parents": [[parent + 1 for parent in branch.parents] for branch in selection.branches],
    }


def output_names(names: Sequence[str]) -> list[str]:
    """Return the names of all files that a sweep over photos of these names writes."""
    drawn = [f"{name}_{picture}.png" for name in names for picture in ("sweep", "tree")]
    return ["sweep.png", *drawn, "sweep.html", "sweep.json"]


def _nodes(explanation: Explanation, photo: int, branch: Branch | None) -> list[TreeNode]:
    """Return the concepts of one number as nodes of the tree; the first level has no branch."""
    shown, names = explanation[photo].photos[0], explanation.class_names
    labels = photo_labels(shown, top_k=1)
    return [
        TreeNode(
            picture=picture,
            color=explanation.bank.colors[k],
            title=short_name(labels[k][0].index, names) if labels[k] else f"{k + 1}",
            parent=branch.parents[k] if branch else None,
            overlap=float(branch.overlap[k, branch.parents[k]]) if branch else 1.0,
        )
        for k, picture in enumerate(clear_where(shown, 2 * THUMBNAIL))
    ]

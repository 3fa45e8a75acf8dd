"""Concept trees: a row of thumbnails for each number of concepts, lines from parent to child."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from dff.errors import UsageError
from dff.rendering import text
from dff.rendering.overlays import check_image
from dff.rendering.panels import fit

__all__ = ["TreeNode", "concept_tree"]

MARGIN, GAP, RISE = 16, 14, 46
FRAME, TITLE = 4, 12
PAPER, FAINT, STRONG = 255, (214, 217, 222), (40, 44, 52)


@dataclass(frozen=True)
class TreeNode:
    """One concept of one level.

    Attributes:
        picture: uint8 (height, width, 3) RGB, such as the photo where the concept is present.
        color: of its frame, RGB.
        title: a short text below it.
        parent: index of the concept in the level above that it came out of; None in the first.
        overlap: how much of it that parent accounts for, in [0, 1]: the weight of the line.
    """

    picture: np.ndarray
    color: Sequence[int] | np.ndarray
    title: str = ""
    parent: int | None = None
    overlap: float = 1.0


def concept_tree(
    levels: Sequence[tuple[str, Sequence[TreeNode]]], *, tile: int = 96
) -> Image.Image:
    """Draw which concept splits into which, from few concepts (top) to many (bottom).

    Children are set in the order of their parents, so that lines cross as little as possible.

    Args:
        levels: (label, concepts) from top to bottom.
        tile: side of a thumbnail in pixels, at least 24.

    Raises:
        UsageError: no levels, or a parent that the level above does not have.
    """
    if not levels or tile < 24:
        raise UsageError("a concept tree needs at least one level, and tiles of 24 pixels or more")
    orders = _orders(levels)
    widest = max(len(nodes) for _, nodes in levels)
    left = MARGIN + max(text.width(text.clean(label), TITLE + 2) for label, _ in levels) + GAP
    cell = tile + 2 * FRAME
    row = cell + text.line_height(TITLE) + RISE
    width = left + widest * (cell + GAP) - GAP + MARGIN
    canvas = np.full((2 * MARGIN + len(levels) * row - RISE, width, 3), PAPER, np.uint8)
    centres: list[dict[int, int]] = []
    for depth, ((label, nodes), order) in enumerate(zip(levels, orders, strict=True)):
        y = MARGIN + depth * row
        start = left + (widest - len(nodes)) * (cell + GAP) // 2
        centres.append(
            {k: start + index * (cell + GAP) + cell // 2 for index, k in enumerate(order)}
        )
        if depth:
            _lines(canvas, nodes, centres[-2], centres[-1], top=y - RISE, bottom=y)
        text.put(canvas, label, x=MARGIN, y=y + cell // 2 - TITLE, size=TITLE + 2)
        for k in order:
            _node(canvas, nodes[k], x=centres[-1][k] - cell // 2, y=y, tile=tile)
    return Image.fromarray(canvas)


def _orders(levels: Sequence[tuple[str, Sequence[TreeNode]]]) -> list[list[int]]:
    """Return the order of each level from left to right: by the place of the parent."""
    orders: list[list[int]] = []
    for depth, (label, nodes) in enumerate(levels):
        if depth == 0:
            orders.append(list(range(len(nodes))))
            continue
        position = {k: index for index, k in enumerate(orders[-1])}
        parents = [node.parent for node in nodes]
        if any(parent is not None and parent not in position for parent in parents):
            raise UsageError(f"a concept of level {label!r} has a parent that does not exist")
        orders.append(
            sorted(
                range(len(nodes)), key=lambda k: (position.get(_root(parents[k]), len(position)), k)
            )
        )
    return orders


def _root(parent: int | None) -> int:
    return -1 if parent is None else parent


def _lines(
    canvas: np.ndarray,
    nodes: Sequence[TreeNode],
    above: dict[int, int],
    below: dict[int, int],
    *,
    top: int,
    bottom: int,
) -> None:
    """Draw a line from each concept to its parent, the thicker the more they overlap."""
    for k, node in sorted(enumerate(nodes), key=lambda item: item[1].overlap):
        if node.parent is None:
            continue
        weight = float(np.clip(node.overlap, 0, 1))
        color = [round(f + weight * (s - f)) for f, s in zip(FAINT, STRONG, strict=True)]
        cv2.line(
            canvas,
            (above[node.parent], top + 4),
            (below[k], bottom - 3),
            color,
            1 + round(3 * weight),
            cv2.LINE_AA,
        )


def _node(canvas: np.ndarray, node: TreeNode, *, x: int, y: int, tile: int) -> None:
    """Draw one framed thumbnail with its title below."""
    check_image(node.picture)
    side = tile + 2 * FRAME
    canvas[y : y + side, x : x + side] = np.asarray(node.color, np.uint8)
    height, width = node.picture.shape[:2]
    scale = tile / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = y + FRAME + (tile - size[0]) // 2, x + FRAME + (tile - size[1]) // 2
    canvas[y + FRAME : y + FRAME + tile, x + FRAME : x + FRAME + tile] = PAPER
    canvas[top : top + size[0], left : left + size[1]] = fit(node.picture, *size)
    text.put(canvas, node.title, x=x, y=y + side, size=TITLE, room=side, color=text.SOFT)

"""Recognise the layout of a layer's output from its shape: what may be a grid of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dff.activations.layouts import Layout, Rearrangement, main_tensor
from dff.errors import LayerError

__all__ = [
    "MAX_PREFIX",
    "Ends",
    "InputSize",
    "LayoutLike",
    "Size",
    "detect_layout",
    "input_size",
    "possible_layouts",
    "read_as",
]

Size = tuple[int, ...]
"""Of an input: (height, width) of images, (frames, height, width) of clips."""

InputSize = tuple[Size, int]
"""Of an input: its size, and how many images or clips it holds."""

MAX_PREFIX = 16
"""The most class and register tokens that may precede a grid of which only the shape is known."""


@dataclass(frozen=True)
class Ends:
    """How many tokens stand before and after the grid, whatever the size of the input.

    Attributes:
        prefix: class and register tokens before the grid.
        suffix: tokens after it, such as the queries of a detector.
    """

    prefix: int = 0
    suffix: int = 0


LayoutLike = Layout | Ends | Rearrangement | Callable[[Any], Tensor] | None
"""What a user may say of how an output reads; None leaves it to be recognised."""


def read_as(
    name: str, output: Any, inputs: InputSize, layout: LayoutLike, *, part: str | None = None
) -> Layout | Rearrangement:
    """Return the layout to read an output with: the one given, traced, or recognised.

    Raises:
        LayerError: the layer `name` has no grid, or `layout` cannot read a `part` of it.
    """
    if isinstance(layout, Layout):
        return replace(layout, part=part)
    if layout is not None and not isinstance(layout, Ends):
        if part is not None:
            raise LayerError(f"a layout= of your own reads all of a layer: name it without :{part}")
        return layout if isinstance(layout, Rearrangement) else Rearrangement.traced(layout, output)
    size, batch = inputs
    # Windows of images, laid out as items of the batch, are no grid of them.
    shape = tuple(main_tensor(output).shape)
    reading = detect_layout(shape, size, layout) if shape[0] in (batch, 1) else None
    if reading is None:
        others = (
            f"{layout.prefix} before and {layout.suffix} after"
            if layout
            else f"0 to {MAX_PREFIX} class and register tokens before"
        )
        tried = f" (as tokens, with {others} a grid of the input's proportions)"
        raise LayerError(
            f"layer {name!r} has no grid: its output is {shape} for {batch} input(s) of "
            f"{' x '.join(map(str, size))}{tried if len(shape) == 3 else ''}; choose an earlier "
            "one (`dff layers` lists them), or say how it reads with layout="
        )
    return replace(reading, part=part)


def input_size(images: Tensor) -> InputSize:
    """Return the size of images or clips, and how many there are; one may come without a batch.

    Raises:
        LayerError: a tensor of less than three axes.
    """
    if images.dim() < 3:
        raise LayerError(
            f"expected an input tensor (batch, 3, height, width), got {tuple(images.shape)}"
        )
    count = int(images.shape[0]) if images.dim() > 3 else 1
    return tuple(images.shape[2:] if images.dim() > 3 else images.shape[1:]), count


def detect_layout(
    shape: tuple[int, ...], input_size: Size, ends: Ends | None = None
) -> Layout | None:
    """Recognise the layout of an output from its shape and the input's size.

    Returns None where there is no grid: one that has the input's aspect ratio, at least two rows
    and columns, and no more cells than pixels. Of tokens, `ends` says which are the grid's; without
    it, as few as possible precede the grid, and none follow.
    """
    *clip, height, width = input_size
    if len(shape) == 2 + len(input_size):
        for kind, cells in (("maps", shape[2:]), ("channels_last", shape[1:-1])):
            *frames, rows, cols = cells
            if not _is_grid(rows, cols, (height, width)):
                continue
            if not frames:
                return Layout(kind, rows, cols)
            if frames[0] <= clip[0] + 2:
                return Layout(kind, frames[0] * rows, cols, frames=frames[0])
    if _is_tokens(shape, input_size):
        return _token_layout(shape[1], (height, width), ends, clip[0] if clip else None)
    return None


def possible_layouts(
    shape: tuple[int, ...], input_size: Size, grids: Iterable[Layout]
) -> list[Layout]:
    """Return all layouts that an output may have, the likeliest first.

    A number of tokens can be read in several ways. The `grids` of outputs before it in the same
    pass, such as that of the patches, are likelier than what fits the number alone.
    """
    recognised = detect_layout(shape, input_size)
    found = [] if recognised is None else [recognised]
    if _is_tokens(shape, input_size):
        found = [*_seen_before(shape[1], grids, MAX_PREFIX), *found]
        found += _seen_before(shape[1], grids)
    return list(dict.fromkeys(found))


def _seen_before(count: int, grids: Iterable[Layout], most: int | None = None) -> Iterator[Layout]:
    """Yield the readings of `count` tokens as one of the grids and others before and after it."""
    for grid in dict.fromkeys(Layout("tokens", g.rows, g.cols, frames=g.frames) for g in grids):
        others = count - grid.tokens
        if others < 0:
            continue
        if most is None:  # a class token before it and queries after it, or queries alone
            yield from (replace(grid, prefix=n, suffix=others - n) for n in (1, 0) if others > n)
        elif others <= most:
            yield replace(grid, prefix=others)


def _is_tokens(shape: tuple[int, ...], input_size: Size) -> bool:
    """Whether an output can be tokens; pixels without channels, as depths, are none."""
    return len(shape) == 3 and shape[1:] != tuple(input_size[-2:])


def _is_grid(rows: int, cols: int, input_size: tuple[int, int]) -> bool:
    """Whether rows x cols can be a strided view of the input, rounding and padding aside."""
    height, width = input_size
    if min(rows, cols) < 2 or rows > height + 2 or cols > width + 2:
        return False
    strides = (height / (rows + 1), height / max(rows - 1, 0.5))
    return strides[0] <= width / max(cols - 1, 0.5) and width / (cols + 1) <= strides[1]


def _token_layout(
    count: int, input_size: tuple[int, int], ends: Ends | None, clip: int | None
) -> Layout | None:
    """Find the grid with the fewest prefix tokens that a square patch could have made.

    Square inputs have square grids: both sides are rounded alike. Of a clip, some whole number of
    its frames makes one grid.
    """
    if clip is not None:
        return _clip_layout(count, input_size, ends, clip)
    height, width = input_size
    suffix = ends.suffix if ends else 0
    fewest, most = (ends.prefix, ends.prefix) if ends else (0, MAX_PREFIX)
    best: tuple[int, float, Layout] | None = None
    for stride in range(1, max(height, width) + 1):
        for rows in {height // stride, -(-height // stride)}:
            for cols in {width // stride, -(-width // stride)}:
                prefix = count - suffix - rows * cols
                if min(rows, cols) < 2 or (height == width and rows != cols):
                    continue
                if not fewest <= prefix <= most:
                    continue
                skew = abs(rows * width - cols * height) / (rows * width)
                if best is None or (prefix, skew) < best[:2]:
                    best = (prefix, skew, Layout("tokens", rows, cols, prefix, suffix))
    return best[2] if best else None


def _clip_layout(
    count: int, input_size: tuple[int, int], ends: Ends | None, clip: int
) -> Layout | None:
    """Find the grids of a clip's frames, all alike, that leave the fewest tokens before them."""
    suffix = ends.suffix if ends else 0
    for prefix in [ends.prefix] if ends else [0, 1]:
        for frames in sorted({-(-clip // tube) for tube in range(1, clip + 1)}, reverse=True):
            cells, rest = divmod(count - prefix - suffix, frames)
            grid = None if rest else _token_layout(cells, input_size, Ends(), None)
            if grid is not None:
                rows = frames * grid.rows
                return replace(grid, rows=rows, frames=frames, prefix=prefix, suffix=suffix)
    return None

"""How a layer's output reads as maps (batch, channels, rows, cols), and how it is written back.

Three layouts cover vision models: *maps* (B, C, h, w) of convolutional networks, *channels-last*
maps (B, h, w, C) of Swin-like models, and *tokens* (B, prefix + h·w + suffix, C) of transformers,
where the prefix holds class and register tokens, and the suffix a detector's queries. Outputs
wrapped in tuples, dicts or dataclasses are unwrapped to their first suitable tensor and wrapped
again.

Of clips (B, C, frames, h, w) the grids of all frames lie one below the other, as on a strip of
film: rows are the frames' rows, and all that holds for maps holds for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dff.errors import LayerError

__all__ = [
    "PARTS",
    "Layout",
    "Rearrangement",
    "each_leaf",
    "each_tensor",
    "main_tensor",
    "named_leaves",
    "over_grid",
    "replace_main_tensor",
    "tensors_of",
]


PARTS = ("query", "key", "value")
"""What a fused layer of an attention block puts side by side, in this order."""


@dataclass(frozen=True)
class Layout:
    """The reading of one layer's output.

    Attributes:
        kind: "maps", "channels_last" or "tokens".
        rows: of the grid; of a clip's, those of all frames.
        cols: of the grid.
        prefix: class and register tokens before the grid.
        suffix: tokens after the grid.
        frames: how many grids lie one below the other; None for images, which have no frames.
        part: one of :data:`PARTS` to read that third of the channels alone; None reads all.
    """

    kind: str
    rows: int
    cols: int
    prefix: int = 0
    suffix: int = 0
    frames: int | None = None
    part: str | None = None

    @property
    def tokens(self) -> int:
        """The number of all tokens, those of the grid and others."""
        return self.prefix + self.rows * self.cols + self.suffix

    def __str__(self) -> str:
        before = f", {self.prefix} before" if self.prefix else ""
        after = f", {self.suffix} after" if self.suffix else ""
        frames = f"{self.frames} x " if self.frames else ""
        rows = self.rows // (self.frames or 1)
        return f"{self.kind.replace('_', ' ')}{before}{after}, {frames}{rows} x {self.cols}"

    def to_maps(self, output: Tensor) -> Tensor:
        """View an output as maps (batch, channels, rows, cols), without a copy."""
        if self.part is not None:
            output = self._third(output)
        if self.kind == "channels_last":
            output = output.movedim(-1, 1)
        if self.kind != "tokens":
            return output if self.frames is None else output.flatten(2, 3)
        tokens = output.narrow(1, self.prefix, self.rows * self.cols)
        return tokens.transpose(1, 2).unflatten(2, (self.rows, self.cols))

    def from_maps(self, maps: Tensor, output: Tensor, source: Tensor | None = None) -> Tensor:
        """Write maps (m, channels, rows, cols) back as an output of m items.

        `source` (m,) names the item of `output` whose other tokens each one carries; None
        means that the items are the output's own. So it does whose other parts, if the maps are
        but a part of the channels.
        """
        if self.part is not None:
            items = (output if source is None else output[source]).clone()
            own = self._third(items)
            own.copy_(replace(self, part=None).from_maps(maps, own))
            return items
        if self.kind != "tokens":
            own = maps if self.frames is None else maps.unflatten(2, (self.frames, -1))
            return own if self.kind == "maps" else own.movedim(1, -1)
        tokens = maps.flatten(2).transpose(1, 2)
        if not self.prefix and not self.suffix:
            return tokens
        ends = (output[:, : self.prefix], output[:, self.prefix + self.rows * self.cols :])
        before, after = ends if source is None else (ends[0][source], ends[1][source])
        return torch.cat([before, tokens, after], 1)

    def _third(self, output: Tensor) -> Tensor:
        """View the channels of the part."""
        assert self.part is not None
        axis = 1 if self.kind == "maps" else -1
        width = output.shape[axis] // len(PARTS)
        return output.narrow(axis, PARTS.index(self.part) * width, width)


@dataclass(frozen=True)
class Rearrangement:
    """The layout that a callable from output to maps describes (a ``reshape_transform``).

    `index` (channels, rows, cols) says where in the flattened output of one item each value of
    its maps lies; it is found by running the callable once on numbered elements.
    """

    index: Tensor

    @classmethod
    def traced(cls, transform: Callable[[Any], Tensor], output: Any) -> Rearrangement:
        """Learn the rearrangement that `transform` makes of outputs like this one.

        Raises:
            LayerError: the transform does not give maps (batch, channels, rows, cols), or does
                more than to rearrange and to leave out.
        """
        like = main_tensor(output)[:1]
        numbers = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
        maps = transform(replace_main_tensor(output, numbers.reshape(like.shape)))
        if not isinstance(maps, Tensor) or maps.dim() != 4 or len(maps) != 1:
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise LayerError(
                "the reshape transform must return maps (batch, channels, rows, cols), got "
                f"{shape} for an output of {tuple(like.shape)}"
            )
        index = maps[0].long()
        if not torch.equal(index.double(), maps[0]) or index.unique().numel() != index.numel():
            raise LayerError("the reshape transform must only rearrange values, not change them")
        return cls(index)

    @property
    def rows(self) -> int:
        """Rows of the grid."""
        return self.index.shape[1]

    @property
    def cols(self) -> int:
        """Columns of the grid."""
        return self.index.shape[2]

    def to_maps(self, output: Tensor) -> Tensor:
        """See :meth:`Layout.to_maps`; makes a copy."""
        return output.flatten(1)[:, self.index]

    def from_maps(self, maps: Tensor, output: Tensor, source: Tensor | None = None) -> Tensor:
        """See :meth:`Layout.from_maps`; what the maps leave out comes from the source items."""
        items = output if source is None else output[source]
        flat = items.flatten(1).clone()
        flat[:, self.index.flatten()] = maps.flatten(1)
        return flat.reshape(items.shape)


def main_tensor(output: Any) -> Tensor:
    """Return the first floating-point tensor of at least two axes in a (nested) output.

    Raises:
        LayerError: there is none.
    """
    tensors = tensors_of(output)
    if not tensors:
        raise LayerError(f"the output is a {type(output).__name__} without a floating-point tensor")
    return tensors[0]


def tensors_of(output: Any) -> list[Tensor]:
    """Return all floating-point tensors of at least two axes in a (nested) output, in order."""
    tensors: list[Tensor] = []
    each_tensor(output, lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return tensors


def over_grid(vectors: Tensor, maps: Tensor) -> Tensor:
    """Lay each of (m, channels) vectors over the whole grid of maps (n, channels, rows, cols).

    Returns (m, channels, rows, cols), in the precision and on the device of the maps.
    """
    return vectors.to(maps)[:, :, None, None].expand(-1, -1, *maps.shape[2:])


def replace_main_tensor(output: Any, new: Tensor) -> Any:
    """Return `output` with its main tensor (see :func:`main_tensor`) replaced by `new`."""
    if isinstance(output, Tensor):
        return new
    done: list[bool] = []

    def replace_first(tensor: Tensor) -> Tensor:
        if done:
            return tensor
        done.append(True)
        return new

    return each_tensor(output, replace_first)


def each_tensor(output: Any, visit: Callable[[Tensor], Tensor]) -> Any:
    """Rebuild `output` with `visit` applied to every tensor that could be the main one."""

    def visited(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dim() < 2:
            return leaf
        return visit(leaf) if leaf.is_floating_point() or leaf.is_quantized else leaf

    return each_leaf(output, visited)


def each_leaf(value: Any, visit: Callable[[Any], Any]) -> Any:
    """Rebuild nested mappings, tuples, lists and dataclasses with `visit` applied to all else."""
    if isinstance(value, Mapping):
        cls: Any = type(value)
        changed = {key: each_leaf(item, visit) for key, item in value.items()}
        return cls(**changed) if dataclasses.is_dataclass(value) else cls(changed)
    if isinstance(value, (tuple, list)):
        items = [each_leaf(item, visit) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if _is_record(value):
        fields = {f.name: each_leaf(getattr(value, f.name), visit) for f in _fields(value)}
        return dataclasses.replace(value, **fields)
    return visit(value)


def named_leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what :func:`each_leaf` visits, in its order, each with a name for where it stands."""
    if isinstance(value, Mapping):
        inner = [(f"{name}[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, (tuple, list)):
        inner = [(f"{name}[{number}]", item) for number, item in enumerate(value)]
    elif _is_record(value):
        inner = [(f"{name}.{f.name}", getattr(value, f.name)) for f in _fields(value)]
    else:
        yield name, value
        return
    for where, item in inner:
        yield from named_leaves(item, where)


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(f for f in dataclasses.fields(value) if f.init)

"""What has a say in a model's output: by the autograd graph of a pass, or by trying.

The graph says which of its nodes every path goes through. Models that gradients do not pass are
tried (:func:`by_swapping`): the output that a layer has on one image takes the place of what it
has on another. If the model's own output then is the other image's, everything passes through the
layer; if only the grid is exchanged, and that changes the output, the grid has a say in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dff.activations.borrowing import borrowed
from dff.activations.hooks import Answer, intercept, observe
from dff.activations.layouts import main_tensor, replace_main_tensor
from dff.errors import DFFError

__all__ = ["by_swapping", "children", "cuts", "leads_to", "no_gradients"]


def cuts(root: Any, nodes: list[Any], leaf: Tensor) -> set[Any]:
    """Return those `nodes` of the graph that every path from `root` to `leaf` passes through.

    A node does when the paths to it times the paths from it are all the paths there are.
    """
    order = _topological(root)
    below: dict[Any, int] = {}
    for node in reversed(order):
        is_leaf = getattr(node, "variable", None) is leaf
        below[node] = int(is_leaf) + sum(below[child] for child in children(node))
    above = dict.fromkeys(order, 0)
    above[root] = 1
    for node in order:
        for child in children(node):
            above[child] += above[node]
    total = below[root]
    return {node for node in nodes if total and above.get(node, 0) * below.get(node, 0) == total}


def leads_to(output: Tensor, tensor: Tensor) -> bool:
    """Return whether the graph of `output` has a path to `tensor`, a leaf or not."""
    if output.grad_fn is None:
        return False
    return any(
        node is tensor.grad_fn or getattr(node, "variable", None) is tensor
        for node in _topological(output.grad_fn)
    )


def children(node: Any) -> list[Any]:
    return [child for child, _ in node.next_functions if child is not None]


def _topological(root: Any) -> list[Any]:
    """Return the graph's nodes, each before its children (depth first, without recursion)."""
    done: dict[Any, None] = {}
    entered: set[Any] = set()
    stack = [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            done[node] = None
        elif node not in entered:
            entered.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in children(node) if child not in entered)
    return list(reversed(done))


def no_gradients(model: nn.Module) -> str | None:
    """Return why no gradient passes a model, and what to ask for instead; None if one does."""
    for name, module in model.named_modules():
        if ".quantized" in type(module).__module__:
            return (
                f"no gradient passes int8 layers (as {name!r}, a {type(module).__name__}): "
                "Grad-CAM, contributions, checks and the evidence 'gradient' need the model "
                "before it was quantised; the evidence 'ablation', 'blur' and 'sobol' do not"
            )
    return None


def by_swapping(
    model: nn.Module,
    x: Tensor,
    names: Iterable[str],
    read: Callable[[Any], Tensor],
    enough: Callable[[str], bool] = lambda _: False,
) -> tuple[set[str], set[str]]:
    """Return the layers whose grid reaches the output, and those that everything passes through.

    Args:
        model: any module.
        x: (1, channels, height, width) an image.
        names: of layers with a grid that run once.
        read: from the model's output to the scores.
        enough: whether a layer that does both ends the search: each costs three passes.
    """
    layers = {name: model.get_submodule(name) for name in names}
    kept: dict[str, Any] = {}

    def keep(name: str, _module: nn.Module, output: Any) -> None:
        if name in layers:
            kept[name] = replace_main_tensor(output, main_tensor(output).clone())

    other = _patchwork(x)
    own = read(borrowed(model, lambda: model(x)))
    others = read(observe(model, keep, other))
    reaching, passing = set(), set()
    for name, layer in layers.items():
        maps: list[Tensor] = []

        def capture(found: Tensor, maps: list[Tensor] = maps) -> None:
            maps.append(found.clone())

        def exchange(_: Tensor, maps: list[Tensor] = maps) -> Answer:
            return maps[0]

        try:
            intercept(model, name, capture, other)
            if not _same(read(intercept(model, name, exchange, x)), own):
                reaching.add(name)
            swapped = borrowed(
                model, lambda: model(x), named={name: layer}, visit=lambda name, *_: kept[name]
            )
        except DFFError:
            continue
        if _same(read(swapped), others):
            passing.add(name)
            if name in reaching and enough(name):
                break
    return reaching, passing


def _patchwork(x: Tensor) -> Tensor:
    """Return an image of large patches, which int8 rounding and averages do not make like noise."""
    patches = torch.randn(
        (*x.shape[:2], *[4] * (x.dim() - 2)), generator=torch.Generator().manual_seed(3)
    )
    return functional.interpolate(2 * patches, x.shape[2:]).to(x)


def _same(scores: Tensor, others: Tensor) -> bool:
    return torch.allclose(scores.float(), others.float(), rtol=1e-4, atol=1e-6)

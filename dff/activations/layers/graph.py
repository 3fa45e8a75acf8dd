"""The autograd graph of a pass: what it leads to, which of its nodes every path goes through."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["children", "cuts", "leads_to"]


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

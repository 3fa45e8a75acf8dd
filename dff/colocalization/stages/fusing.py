"""Faster inference of a convolutional network: each BatchNorm folded into its convolution.

In evaluation mode a BatchNorm is a fixed scale and shift per channel, which the convolution
before it can do by itself (Markus, "Fusing batch normalization and convolution in runtime", 2018).
The user's model stays as it is: a copy is changed, and used only where it gives the same output.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dff.activations import observe, split_part
from dff.activations.layouts import main_tensor
from dff.errors import LayerError

__all__ = ["fused"]

TOLERANCE = 1e-3  # of the output's largest value


def fused(model: nn.Module, layer: str, probe: Tensor) -> nn.Module:
    """Return a copy of `model` with BatchNorms folded away, or `model` itself where none can be.

    Args:
        model: any module.
        layer: whose output must stay what it is, as must the model's own.
        probe: an input (1, 3, height, width), on the model's device.
    """
    layer = split_part(layer)[0]
    try:
        pairs = _pairs(model, layer, probe)
        if not pairs:
            return model
        quick = copy.deepcopy(model).eval()
        for convolution, norm in pairs:
            conv_module, norm_module = quick.get_submodule(convolution), quick.get_submodule(norm)
            _replace(quick, convolution, fuse_conv_bn_eval(conv_module, norm_module))  # type: ignore[arg-type,type-var]
            _replace(quick, norm, nn.Identity())
        same = _agree(_outputs(model, layer, probe), _outputs(quick, layer, probe))
    except (RuntimeError, TypeError, AttributeError, LayerError):
        return model  # whatever is unusual about it: it runs as it is
    return quick if same else model


def _pairs(model: nn.Module, layer: str, probe: Tensor) -> list[tuple[str, str]]:
    """Return the names of each convolution and the BatchNorm that alone uses its output.

    Read off the graph of one recorded pass: the BatchNorm's node follows the convolution's node,
    and no other node does.
    """
    nodes: dict[Any, str] = {}
    norms: list[tuple[str, Any]] = []
    runs: dict[str, int] = {}

    def visit(name: str, module: nn.Module, output: Any) -> None:
        runs[name] = runs.get(name, 0) + 1
        if isinstance(output, Tensor) and output.grad_fn is not None:
            if isinstance(module, nn.Conv2d):
                nodes[output.grad_fn] = name
            elif type(module) is nn.BatchNorm2d and module.track_running_stats:
                norms.append((name, output.grad_fn))

    leaf = probe.detach().clone().requires_grad_()
    result = main_tensor(observe(model, visit, leaf, grad=True))
    uses = _uses(result.grad_fn)
    pairs = []
    for name, node in norms:
        before = node.next_functions[0][0]
        convolution = nodes.get(before)
        once = convolution is not None and runs[convolution] == runs[name] == 1
        if convolution is not None and once and uses.get(before) == 1 and convolution != layer:
            pairs.append((convolution, name))
    return pairs


def _uses(root: Any) -> dict[Any, int]:
    """Return how many nodes of a graph follow each node."""
    uses: dict[Any, int] = {}
    seen, stack = {root}, [root]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None:
                uses[child] = uses.get(child, 0) + 1
                if child not in seen:
                    seen.add(child)
                    stack.append(child)
    return uses


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _outputs(model: nn.Module, layer: str, probe: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []

    def visit(name: str, module: nn.Module, output: Any) -> None:
        if name == layer:
            kept.append(main_tensor(output).clone())

    kept.append(main_tensor(observe(model, visit, probe)))
    return kept


def _agree(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and float((a - b).abs().max()) <= TOLERANCE * float(a.abs().max())
        for a, b in zip(first, second, strict=True)
    )

"""LeGrad: how the attention of every block of a transformer has a say in the score.

Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation
Sensitivity", 2024, section 3. The score of block l is what the model's own head makes of the tokens
that the block puts out, as if it were the last. With A the attention of the block, (heads, queries,
keys), its map is the mean over heads and queries of max(d score / d A, 0), of the keys that are
cells of the grid; the maps of all blocks are added up.

One pass gives it all: each block goes on with tokens cut off from the graph, so that a gradient
stays within its block, and at the last one the tokens of all blocks join the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dff.activations import LayoutLike, record
from dff.activations.failures import model_errors
from dff.activations.layouts import each_tensor, main_tensor, replace_main_tensor
from dff.activations.reach import no_gradients
from dff.errors import LayerError, ModelError
from dff.maps import upsample
from gradcam.cam import BaseCAM
from gradcam.recording import reading_for
from gradcam.scores import Targets, class_scores, resolve, score

__all__ = ["LeGrad"]

INSTEAD = "GradCAM, LayerCAM and EigenCAM do without"
SOFTMAX = (torch.softmax, torch.Tensor.softmax, functional.softmax)


class LeGrad(BaseCAM):
    """Maps of a vision transformer's attention (Bousselham et al. 2024); no principal component.

    Args:
        model: a transformer whose blocks attend to all tokens.
        target_layers: its blocks, whose maps are added up; None takes all.
        reshape_transform, options: see :class:`~gradcam.cam.BaseCAM`.

    Raises:
        ModelError: the model has no such blocks.
        LayerError: a target layer that is none of them.
    """

    shares_pass = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str] | nn.Module | str | None = None,
        reshape_transform: LayoutLike = None,
        **options: Any,
    ) -> None:
        inner = model.module if isinstance(model, nn.DataParallel) else model
        blocks = _blocks(inner)
        super().__init__(
            model, blocks if target_layers is None else target_layers, reshape_transform, **options
        )
        self.blocks = blocks
        if strange := [name for name in self.target_layers if name not in blocks]:
            raise LayerError(
                f"layer {strange[0]!r} is no block with an attention; they are {blocks[0]!r} to "
                f"{blocks[-1]!r}"
            )

    def _forward(self, input_tensor: Tensor, targets: Targets, smooth: bool) -> np.ndarray:
        if reason := no_gradients(self.model):
            raise ModelError(reason)
        weight = next(self.model.parameters(), None)
        x = input_tensor if weight is None else input_tensor.to(weight.device)
        count = len(x)
        output, tokens, attentions = self._pass(x)
        # Items are the blocks', block by block; those of the last one are the model's own.
        own = each_tensor(output, lambda t: t[-count:].detach())
        wanted = resolve(
            targets, lambda: class_scores(self.model, own, count), count, self.class_names
        )
        total = score(self.model, output, wanted * len(self.blocks)).sum()
        gradients = torch.autograd.grad(total, attentions)
        self.outputs = own
        size = (int(x.shape[-2]), int(x.shape[-1]))
        kept = [self.blocks.index(name) for name in self.target_layers]
        maps = [
            self._map(name, gradients[i], tokens[i], x)
            for i, name in zip(kept, self.target_layers, strict=True)
        ]
        total_map = torch.stack(maps).sum(0).float().cpu()
        return self._scaled(upsample(total_map, size, self.grid)).numpy()

    def _pass(self, x: Tensor) -> tuple[Any, list[Any], list[Any]]:
        """Return the output of all blocks' tokens, each block's own, and each block's attention."""
        watch = _Attentions()
        found: list[Any] = []
        tokens: list[Any] = []

        def change(output: Any) -> Any:
            if len(watch.seen) != len(tokens) + 1:
                raise ModelError(
                    f"LeGrad needs one attention a block, and {self.blocks[len(tokens)]!r} has "
                    f"{len(watch.seen) - len(tokens)} that it can see: {INSTEAD}"
                )
            tokens.append(main_tensor(output))
            if len(tokens) < len(self.blocks):
                return replace_main_tensor(output, tokens[-1].detach())
            return replace_main_tensor(output, torch.cat(tokens))

        def run() -> Any:
            torch.set_grad_enabled(True)
            with watch:
                return self.model(x)

        with model_errors(self.model, x):
            output, found = record(self.model, self.blocks, x, run=run, change=change)
        return output, found, watch.seen

    def _map(self, name: str, gradient: Tensor, output: Any, x: Tensor) -> Tensor:
        """Return the map (n, rows, cols) of one block from the gradient of its attention."""
        tokens = main_tensor(output)
        if gradient.numel() % len(tokens) or gradient.shape[-1] != tokens.shape[1]:
            raise ModelError(
                f"the attention of {name!r} is {tuple(gradient.shape)} for tokens "
                f"{tuple(tokens.shape)}: LeGrad needs one over all tokens; {INSTEAD}"
            )
        heads = gradient.reshape(len(tokens), -1, *gradient.shape[-2:])
        shares = heads.relu().mean((1, 2))[..., None]  # (n, tokens, 1)
        if not bool(torch.isfinite(shares).all()):
            raise ModelError(f"the gradients of {name!r} hold NaN or infinity: there is no map")
        reading = reading_for(name, output, x, self.reshape_transform)
        return (reading(shares) if callable(reading) else reading.to_maps(shares))[:, 0]


class _Attentions(TorchFunctionMode):
    """Holds the attention of every block in the graph, where the model would fuse it away."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._explicit(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._many_headed(func, args, kwargs)
        result = func(*args, **kwargs)
        if func in SOFTMAX and result.dim() == 4 and result.shape[-1] == result.shape[-2]:
            return self._leaf(result)
        return result

    def _leaf(self, attention: Tensor) -> Tensor:
        self.seen.append(attention.detach().requires_grad_())
        return self.seen[-1]

    def _explicit(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa:
            raise ModelError(f"LeGrad does not know causal or grouped attention: {INSTEAD}")
        scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._leaf(scores.softmax(-1)) @ value

    def _many_headed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run torch's own attention, which returns its weights off the path of the gradient."""
        tensors = [arg.detach().requires_grad_() for arg in args[:3]]
        asked = {**kwargs, "need_weights": True, "average_attn_weights": False}
        result, weights = func(*tensors, *args[3:], **asked)
        node, number = weights.grad_fn.next_functions[0]
        self.seen.append(GradientEdge(node, number))
        return result, (weights if kwargs.get("need_weights", True) else None)


def _blocks(model: nn.Module) -> list[str]:
    """Return the names of a transformer's blocks: the most modules in a row that attend alike.

    Raises:
        ModelError: there are none.
    """
    rows: list[list[str]] = [[]]
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        children = list(module.named_children())
        if len({type(child) for _, child in children}) == 1 and _attends(children[0][1]):
            rows.append([f"{name}.{child}" if name else child for child, _ in children])
    found = max(rows, key=len)
    if not found:
        raise ModelError(
            f"LeGrad needs the attention of a transformer's blocks, and {type(model).__name__} has "
            f"none: {INSTEAD}"
        )
    return found


def _attends(module: nn.Module) -> bool:
    return any(
        isinstance(part, nn.MultiheadAttention) or "attention" in type(part).__name__.lower()
        for part in module.modules()
    )

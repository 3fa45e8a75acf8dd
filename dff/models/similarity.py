"""Models of images and texts as classifiers of images: a text is a class."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from dff.errors import ModelError, UsageError
from dff.models.towers import takes_texts

__all__ = ["ImageTextSimilarity"]


class ImageTextSimilarity(nn.Module):
    """How like images are to texts: (n, 3, height, width) normalised to logits (n, texts).

    Of a CLIP, the cosine of image and text by the model's temperature, whose softmax over the texts
    is what it was trained for (Radford et al. 2021); of a SigLIP with its bias, whose sigmoid says
    of each text whether it fits (Zhai et al. 2023). The texts are read once.

    Args:
        model: of Hugging Face, such as ``CLIPModel`` and ``SiglipModel``; its part for images is
            this module's ``vision_model``.
        tokens: of the texts, as the model's tokenizer gives them: ``input_ids`` (texts, words), and
            ``attention_mask`` if there is one.

    Raises:
        ModelError: the model does not compare images with texts.
        UsageError: no text.
    """

    def __init__(self, model: Any, **tokens: Tensor) -> None:
        super().__init__()
        if not takes_texts(model) or not hasattr(model, "get_text_features"):
            raise ModelError(
                f"a {type(model).__name__} does not compare images with texts, as a CLIPModel or a "
                "SiglipModel does"
            )
        if not len(tokens.get("input_ids", ())):
            raise UsageError("no text to compare with: give input_ids= of at least one")
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", None)
        bias = getattr(model, "logit_bias", None)
        self.config = copy(model.config.vision_config)
        if bias is not None:
            self.config.problem_type = "multi_label_classification"
        with torch.no_grad():
            texts = _pooled(model.get_text_features(**tokens))
            self.register_buffer("texts", texts / texts.norm(dim=-1, keepdim=True))
            self.register_buffer("scale", model.logit_scale.detach().exp())
            self.register_buffer("bias", torch.zeros(()) if bias is None else bias.detach())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, texts)."""
        seen = _pooled(self.vision_model(pixel_values=images))
        if self.visual_projection is not None:
            seen = self.visual_projection(seen)
        seen = seen / seen.norm(dim=-1, keepdim=True)
        logits: Tensor = self.scale * seen @ self.texts.T + self.bias
        return logits


def _pooled(output: Any) -> Tensor:
    """Return the features (n, features) of an output, or the features themselves."""
    pooled: Tensor = getattr(output, "pooler_output", output)
    return pooled

"""Hugging Face's models: the class that a checkpoint is for, and its photos' preprocessing.

A checkpoint says in its configuration what it was saved as (`architectures`). An image classifier
is built as what it is; every other one is a backbone, of which nothing is scored: a head that a
checkpoint lacks would be initialised by chance.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dff.errors import MissingExtraError, ModelError
from dff.images import Preprocessing
from dff.models.hub import quick_hub
from dff.models.loaded import (
    LoadedModel,
    describe,
    hugging_face_labels,
    processed_by,
    without_head,
)
from dff.models.request import DEFAULT, Request, filled_but_for_head, first_line, lacking_head
from dff.models.similarity import ImageTextSimilarity
from dff.models.towers import image_tower
from dff.models.weights import read_weights

__all__ = ["hugging_face"]

CLASSIFIER = "ForImageClassification"


def hugging_face(request: Request) -> LoadedModel:
    """Build a model of the transformers package, by the name of a repository or a local folder.

    Raises:
        MissingExtraError: transformers is not installed.
        ModelError: no such model, no model of images, or weights that do not fit.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "hf") from None
    local = os.path.isdir(request.name)
    if request.name.startswith((".", os.sep)) and not local:
        raise ModelError(f"the Hugging Face model {request.name!r} cannot be had: no such folder")
    with _quietly(transformers), nullcontext("") if local else quick_hub() as why:
        try:
            build = _comparing if request.texts else _built
            module, unscored = build(request, transformers)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the Hugging Face model {request.name!r} cannot be had "
                f"({why or first_line(error)}); give hf:FOLDER, a local copy, or the name of an "
                "image classifier or of an encoder of images, or use --model demo"
            ) from error
        described = describe(module)
        prep = _preprocessing(request.name, described.preprocessing, transformers)
    if request.path:
        unscored = filled_but_for_head(module, read_weights(request.path), request) or unscored
    names = None if unscored else request.texts or hugging_face_labels(module.config)
    return LoadedModel(module, request.name, prep, names, unscored)


def _built(request: Request, transformers: Any) -> tuple[Any, str | None]:
    """Return the module, and why it is not scored if it is not."""
    config = transformers.AutoConfig.from_pretrained(request.name, trust_remote_code=False)
    saved_as = list(config.architectures or [])
    if not request.num_classes and saved_as and not any(CLASSIFIER in one for one in saved_as):
        module = _images_alone(_made(transformers.AutoModel, request, config)[0], request.name)
        return module, without_head(f"{request.name} ({saved_as[0]}) has no classification head")
    if request.num_classes:
        config.num_labels = request.num_classes
    own = next((getattr(transformers, one, None) for one in saved_as if CLASSIFIER in one), None)
    builder = own or transformers.AutoModelForImageClassification
    module, lacking = _made(builder, request, config)
    if not lacking:
        return module, None
    return module, lacking_head(f"the checkpoint {request.name}", lacking)


def _comparing(request: Request, transformers: Any) -> tuple[Any, None]:
    """Return a model that compares images with the texts.

    Raises:
        ModelError: it is of another kind, or has no tokenizer; a file of weights is named.
    """
    if request.path:
        raise ModelError("a model of images and texts takes the weights of its own folder")
    config = transformers.AutoConfig.from_pretrained(request.name, trust_remote_code=False)
    if not hasattr(config, "text_config"):
        kind = type(config).__name__.removesuffix("Config")
        raise ModelError(f"{request.name} is a {kind}, of images alone: leave out the texts")
    model, _ = _made(transformers.AutoModel, request, config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(request.name)
    # SigLIPs were trained with texts of full length, and take no mask.
    padding = "max_length" if hasattr(model, "logit_bias") else True
    longest = getattr(config.text_config, "max_position_embeddings", None)
    tokens = tokenizer(
        list(request.texts), padding=padding, truncation=True, max_length=longest,
        return_tensors="pt",
    )  # fmt: skip
    taken = inspect.signature(model.get_text_features).parameters
    return ImageTextSimilarity(
        model.eval(), **{k: v for k, v in tokens.items() if k in taken}
    ), None


def _made(builder: Any, request: Request, config: Any) -> tuple[Any, list[str]]:
    """Return a model with the weights asked for, and the keys that its checkpoint lacks."""
    if request.weights == DEFAULT:
        module, loaded = builder.from_pretrained(request.name, output_loading_info=True)
        return module, sorted(loaded["missing_keys"])
    auto = hasattr(builder, "from_config")
    return builder.from_config(config) if auto else builder(config), []


def _images_alone(module: nn.Module, name: str) -> nn.Module:
    """Return the part of a model that takes images alone, all patches of them in their order."""
    if hasattr(module.config, "text_config"):
        module = image_tower(module, name)
    embeddings: Any = getattr(module, "embeddings", None)
    if hasattr(embeddings, "random_masking"):  # a masked autoencoder
        embeddings.random_masking = _all_patches
    return module


def _all_patches(sequence: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Mask no patch and leave them in their order, in place of ``random_masking``."""
    batch, length, _ = sequence.shape
    order = torch.arange(length, device=sequence.device).expand(batch, -1)
    return sequence, torch.zeros(batch, length, device=sequence.device), order


def _preprocessing(name: str, own: Preprocessing, transformers: Any) -> Preprocessing:
    """Return the preprocessing of a checkpoint's image processor, or the model's own."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        return own
    return processed_by(processor, own)


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Keep the package's bars and reports off the screen: what matters is said by `unscored`."""
    log = transformers.utils.logging
    before, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if bars:
            log.enable_progress_bar()

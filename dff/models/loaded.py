"""What is known of a model: the module, its name, preprocessing and class names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from dff.errors import ModelError
from dff.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from dff.models.detectors import detector_preprocessing
from dff.models.towers import image_tower, takes_texts

__all__ = ["LoadedModel", "describe", "preprocessing_from", "processed_by", "without_head"]


@dataclass(frozen=True)
class LoadedModel:
    """A model and what is needed to feed it and to read its output.

    Attributes:
        module: the network.
        name: for titles and for what is saved, such as "resnet50".
        preprocessing: how photos become its input.
        class_names: one for each logit, in order; None where unknown.
        unscored: why its output is no scores of classes, as of a backbone (:func:`without_head`);
            None where it is, or where only the output can tell.
        untrained: its weights are random, as was asked for.
        recipe: what :func:`load_model` was asked for beside the name, as plain data: "weights"
            (with "sha256" where they are a file), "labels" (a file), "num_classes"; and, of an
            explainer, "size", "mean", "std", "output_kind". Empty for a module of the user's.
    """

    module: nn.Module
    name: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    unscored: str | None = None
    untrained: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)

    def recipe_with(
        self, preprocessing: Preprocessing, output_kind: str | None, *, own_names: bool
    ) -> dict[str, Any]:
        """Return the recipe with what an explainer adds; without labels if it has names of its own.

        Empty where the model has none.
        """
        if not self.recipe:
            return {}
        kept = {key: v for key, v in self.recipe.items() if key != "labels" or not own_names}
        sizes = {"size": preprocessing.size, "mean": list(preprocessing.mean),
                 "std": list(preprocessing.std)}  # fmt: skip
        return {**kept, **sizes, **({"output_kind": output_kind} if output_kind else {})}


def without_head(what: str) -> str:
    """Return why a model's output is not scored: `what` says what the model is or lacks."""
    return (
        f"{what}: it gives concepts, maps and banks, but scores, evidence and Grad-CAM need the "
        "logits of a trained head; take a checkpoint that has one, or give dff.Explainer a score= "
        "(from the model's output to scores, such as the likeness to some texts)"
    )


def describe(module: nn.Module) -> LoadedModel:
    """Return what a module says of itself: timm's and Hugging Face's configurations are read.

    A module that says nothing gets ImageNet's customary preprocessing at 224 px; for another
    number of channels than three (:func:`input_channels`) its mean over R, G, B. What is wrapped
    in DataParallel or ``torch.compile`` is unwrapped: layers have their own names then, and hooks
    are heard. Of a Hugging Face model of images and texts (CLIP) the part for images is taken.

    Raises:
        ModelError: a masked autoencoder of Hugging Face that would drop and shuffle its patches,
            or a model of images and texts without a part for images alone.
    """
    module = unwrapped(module)
    name = str(getattr(module, "original_name", type(module).__name__))  # of torch.jit
    settings = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(settings, dict) and "mean" in settings:
        name = str(settings.get("architecture") or name)
        prep = preprocessing_from(settings).for_channels(input_channels(module))
        return LoadedModel(module, name, prep, unscored=_timm_backbone(module, name, settings))
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        _refuse_random_masks(module)
        if takes_texts(module):
            tower = describe(image_tower(module, f"the model {name!r}"))
            what = f"of a {name}, which compares images with texts, the part for images is taken"
            return replace(tower, name=name, unscored=without_head(what))
        prep = _hugging_face(config).for_channels(input_channels(module))
        return LoadedModel(module, name, prep, hugging_face_labels(config))
    own = detector_preprocessing(module)
    prep = own or Preprocessing(frames=FRAMES if takes_clips(module) else None)
    return LoadedModel(module, name, prep.for_channels(input_channels(module)))


FRAMES = 16
"""What video networks customarily take of a clip."""


def takes_clips(module: nn.Module) -> bool:
    """Whether a model takes clips, or volumes: its first convolution has three axes."""
    kinds = (nn.Conv2d, nn.Conv3d)
    first = next((part for part in module.modules() if isinstance(part, kinds)), None)
    return isinstance(first, nn.Conv3d)


REARRANGING = ("SpaceToDepth", "PixelUnshuffle", "Focus")
"""In class names of modules that make many channels of few before the first convolution."""


def input_channels(module: nn.Module) -> int:
    """Return how many channels of images a model takes.

    As its Hugging Face configuration says, or those of its first convolution; 3 where there is
    none, or (as a timm model says by naming no first convolution) it takes no images.
    """
    said = getattr(getattr(module, "config", None), "num_channels", None)
    if isinstance(said, int):
        return said
    settings = getattr(module, "default_cfg", None)
    if isinstance(settings, dict) and not settings.get("first_conv", True):
        return 3
    for part in module.modules():
        if any(name in type(part).__name__ for name in REARRANGING):
            return 3
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            return int(part.in_channels)
    return 3


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and ``torch.compile``."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        else:
            inner = getattr(module, "_orig_mod", module)
        if inner is module or not isinstance(inner, nn.Module):
            return module
        module = inner


def _timm_backbone(module: nn.Module, name: str, settings: dict[str, Any]) -> str | None:
    """Return why the output of a timm model is no scores; None if it is.

    Either it was built with ``num_classes=0``, as DINO, SigLIP and MAE encoders are by default,
    or its last layer is the projection into the space of images and texts of a CLIP, which
    timm counts as classes. CLIPs that were tuned on ImageNet say so in their tag.
    """
    count, tag = getattr(module, "num_classes", None), str(settings.get("tag") or "")
    if count == 0:
        return without_head(f"the timm model {name} has no classification head (num_classes=0)")
    projects = "clip" in f"{name}.{tag}" and "_in1" not in tag and "_in2" not in tag
    if projects and count == settings.get("num_classes"):
        return without_head(f"the timm model {name}.{tag} projects images beside texts, no classes")
    return None


def _refuse_random_masks(module: nn.Module) -> None:
    """Refuse an encoder whose patches are no grid, as they are dropped and shuffled by chance."""
    embeddings = getattr(module, "embeddings", None)
    if "random_masking" in dir(type(embeddings)) and "random_masking" not in vars(embeddings):
        raise ModelError(
            f"a {type(module).__name__} drops patches by chance and shuffles the others, so that "
            "its tokens are no grid; load it by its name, dff.load_model('hf:NAME_OR_FOLDER'), "
            "which lets all patches through in their order"
        )


def preprocessing_from(settings: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing of a timm configuration."""
    return Preprocessing(
        size=int(settings.get("input_size", (3, 224, 224))[-1]),
        mean=settings.get("mean", IMAGENET_MEAN),
        std=settings.get("std", IMAGENET_STD),
        fixed=bool(settings.get("fixed_input_size", False)),
        interpolation="bicubic" if settings.get("interpolation") == "bicubic" else "bilinear",
    )


def processed_by(processor: Any, own: Preprocessing) -> Preprocessing:
    """Return the preprocessing of a Hugging Face image processor; `own` is what it leaves open."""
    size = getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {}
    short = size.get("shortest_edge") or size.get("height") or own.size
    mean, std = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    if not getattr(processor, "do_normalize", True):
        mean, std = 0.0, 1.0
    found = Preprocessing(
        size=int(short),
        mean=own.mean if mean is None else mean,
        std=own.std if std is None else std,
    )
    return found.for_channels(own.channels)


def _hugging_face(config: Any) -> Preprocessing:
    config = getattr(config, "vision_config", config)  # of images and texts
    size = getattr(config, "image_size", None) or 224
    if isinstance(size, (list, tuple)):
        size = min(size)
    return Preprocessing(size=int(size))


def hugging_face_labels(config: Any) -> tuple[str, ...] | None:
    """Return the class names of a Hugging Face configuration; None for placeholders."""
    named = getattr(config, "id2label", None) or {}
    if not named or all(str(v) == f"LABEL_{k}" for k, v in named.items()):
        return None
    return tuple(str(named[key]) for key in sorted(named, key=int))

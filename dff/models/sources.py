"""Where models come from: torchvision, timm, Hugging Face, a file of the user's, the demo."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dff.errors import MissingExtraError, ModelError, UsageError, closest
from dff.files import digest_of
from dff.images import Preprocessing
from dff.labels import read_labels
from dff.models.hub import quick_hub
from dff.models.hugging_face import hugging_face
from dff.models.loaded import (
    FRAMES,
    LoadedModel,
    describe,
    input_channels,
    preprocessing_from,
    without_head,
)
from dff.models.request import DEFAULT, RANDOM, Request, filled_but_for_head, first_line
from dff.models.weights import class_count, read_weights

__all__ = ["is_code", "list_models", "load_model"]

HALVES = (torch.float16, torch.bfloat16)


def list_models() -> list[str]:
    """Return the names of torchvision's classification models, of photos and of clips; "demo"."""
    from torchvision import models  # heavy

    return ["demo", *models.list_models(module=models), *models.list_models(module=models.video)]


def load_model(
    name: str = "resnet50",
    *,
    weights: str | Path = DEFAULT,
    num_classes: int | None = None,
    labels: str | Path | Sequence[str] | None = None,
    size: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    texts: Sequence[str] = (),
) -> LoadedModel:
    """Build a model by name, in evaluation mode, on the CPU, in float32.

    Checkpoints of half precision become float32: processors compute in halves many times slower.

    Args:
        name: a torchvision classification model (see :func:`list_models`), ``timm:NAME``,
            ``hf:NAME_OR_FOLDER``, ``module_or_file.py:factory`` (called without arguments;
            returns a module), or ``demo``.
        weights: "default" (the model's own, downloaded once), "random", or a local file (see
            :func:`~dff.models.read_weights`).
        num_classes: of the head, where the weights are not the default ones; None to take it
            from the labels or the weights; 0 takes the model for a backbone, whatever its head.
        labels: class names, or a text file with one a line; None takes the model's own.
        size: short side of the input in pixels; None takes the model's own.
        mean: per-channel mean of the input's normalisation (levels in [0, 1]); likewise.
        std: per-channel standard deviation; likewise.
        texts: of a model of images and texts (CLIP, SigLIP), what to compare images with: each
            is a class (:class:`~dff.models.ImageTextSimilarity`).

    Raises:
        ModelError: no such model, or weights that cannot be had or do not fit.
        UsageError: labels that do not fit, or a malformed name.
        MissingExtraError: the source's package is not installed.
    """
    names = read_labels(labels) if isinstance(labels, (str, Path)) else labels
    if num_classes is None and names is not None and str(weights) != DEFAULT:
        num_classes = len(names)
    source, rest = _source_of(name)
    if texts and source is not hugging_face:
        raise UsageError(f"texts are for models of images and texts, such as hf:CLIP; not {name}")
    loaded = source(Request(rest, str(weights), num_classes or None, tuple(texts)))
    loaded.module.eval()
    clips = loaded.preprocessing.frames is not None
    if source is not _factory and not clips:  # code of the user's may ask for an order of its own
        loaded.module.to(memory_format=torch.channels_last)  # what convolutions run best in
    if any(p.device.type == "cpu" and p.dtype in HALVES for p in loaded.module.parameters()):
        loaded.module.float()
    if num_classes == 0 and not loaded.unscored:
        loaded = replace(loaded, unscored=without_head(f"{name} was asked for with 0 classes"))
    if names is not None:
        loaded = replace(loaded, class_names=tuple(names))
    own = loaded.preprocessing
    changed = Preprocessing(
        size=own.size if size is None else size,
        mean=_of_channels(own.channels, mean, own.mean),
        std=_of_channels(own.channels, std, own.std),
        fixed=own.fixed,
        interpolation=own.interpolation,
        frames=own.frames,
    )
    untrained = str(weights) == RANDOM and source not in (_factory, _demo)
    recipe = _recipe(str(weights), labels, num_classes)
    return replace(loaded, name=name, preprocessing=changed, untrained=untrained, recipe=recipe)


def _recipe(
    weights: str, labels: str | Path | Sequence[str] | None, num_classes: int | None
) -> dict[str, Any]:
    """Return what was asked for, as plain data; paths as given, names of classes left out."""
    said = {
        "weights": weights,
        "sha256": None if weights in (DEFAULT, RANDOM) else digest_of(weights),
        "labels": str(labels) if isinstance(labels, (str, Path)) else None,
        "num_classes": num_classes,
    }
    return {key: value for key, value in said.items() if value is not None}


def _of_channels(
    count: int, given: float | Sequence[float] | None, own: Sequence[float]
) -> Sequence[float]:
    """Return a number for each channel: what is given, one number for all, or the model's own."""
    if given is None:
        return own
    return [float(given)] * count if isinstance(given, (int, float)) else given


def _source_of(name: str) -> tuple[Callable[[Request], LoadedModel], str]:
    """Return the source that a model's name speaks of, and the rest of the name."""
    prefix, _, rest = name.partition(":")
    if name == "demo":
        return _demo, name
    if rest and prefix in SOURCES:
        return SOURCES[prefix], rest
    if rest and (prefix.endswith(".py") or importlib.util.find_spec(prefix.split(".")[0])):
        return _factory, name
    return _torchvision, name


def is_code(name: str) -> bool:
    """Whether a model's name is that of a function of somebody's code, which would be run."""
    return _source_of(name)[0] is _factory


def _torchvision(request: Request) -> LoadedModel:
    from torchvision import models  # heavy, and other sources do without

    if request.name not in (known := list_models()):
        hint = closest(request.name, known) or "; `dff models` lists them"
        raise ModelError(f"there is no model {request.name!r}{hint}")
    default = models.get_model_weights(request.name).DEFAULT
    crop = default.transforms()
    own = Preprocessing(
        size=crop.crop_size[0],
        mean=crop.mean,
        std=crop.std,
        interpolation="bicubic" if crop.interpolation.value == "bicubic" else "bilinear",
        frames=FRAMES if request.name in models.list_models(module=models.video) else None,
    )
    if request.weights == DEFAULT:
        try:
            module = models.get_model(request.name, weights=default)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", None) or error
            raise ModelError(
                f"the default weights of {request.name} cannot be downloaded from {default.url} "
                f"({reason}); put that file into {os.path.join(torch.hub.get_dir(), 'checkpoints')}"
                ", give --weights FILE, or use --model demo, which needs no network"
            ) from error
        return LoadedModel(module, request.name, own, tuple(default.meta["categories"]))
    module, unscored = _filled(_quietly(models.get_model, request.name), request)
    return LoadedModel(module, request.name, own, unscored=unscored)


def _quietly(builder: Callable[..., nn.Module], name: str) -> Callable[..., nn.Module]:
    """Return a builder without weights, for `num_classes` classes, of a torchvision model."""
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}

    def build(**options: Any) -> nn.Module:
        return builder(name, weights=None, **extra, **options)

    return build


def _filled(build: Callable[..., nn.Module], request: Request) -> tuple[nn.Module, str | None]:
    """Build a model, and fill it with the weights of a local file if one is named.

    Returned with it: why it is not scored, where the file lacks the head.
    """
    unscored = None
    state = read_weights(request.path) if request.path else None
    module = _built(build, request.name, request.num_classes)
    if state is not None:
        if request.num_classes is None and (count := class_count(module, state)):
            module = _built(build, request.name, count)
        unscored = filled_but_for_head(module, state, request)
    return module, unscored


def _built(build: Callable[..., nn.Module], name: str, count: int | None) -> nn.Module:
    try:
        return build(**({} if count is None else {"num_classes": count}))
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{name} cannot be built for {count} classes: {error}") from error


def _timm(request: Request) -> LoadedModel:
    try:
        import timm
    except ImportError:
        raise MissingExtraError("timm", "timm") from None
    if request.name not in timm.list_models() and not timm.is_model(request.name.split(".")[0]):
        known = timm.list_models()
        raise ModelError(f"timm has no model {request.name!r}{closest(request.name, known)}")
    unscored = None
    if request.weights == DEFAULT:
        module = _pretrained(timm, request.name)
    else:
        module, unscored = _filled(lambda **kw: timm.create_model(request.name, **kw), request)
    settings = timm.data.resolve_model_data_config(module)
    fixed = bool((module.pretrained_cfg or {}).get("fixed_input_size", False))
    names = None
    if request.weights == DEFAULT:
        names = (module.pretrained_cfg or {}).get("label_names")
    prep = preprocessing_from({**settings, "fixed_input_size": fixed})
    prep = prep.for_channels(input_channels(module))
    return LoadedModel(
        module,
        request.name,
        prep,
        tuple(names) if names else None,
        unscored or describe(module).unscored,
    )


def _pretrained(timm: Any, name: str) -> Any:
    with quick_hub() as why:
        try:
            return timm.create_model(name, pretrained=True)
        except (OSError, RuntimeError, urllib.error.URLError) as error:
            raise ModelError(
                f"the default weights of timm:{name} cannot be had ({why or first_line(error)}); "
                "give --weights FILE, or use --model demo, which needs no network"
            ) from error


def _factory(request: Request) -> LoadedModel:
    """Call a function of the user's own code, which returns a module (or a LoadedModel)."""
    where, _, attribute = request.name.rpartition(":")
    try:
        code = (
            _import_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        )
    except (ImportError, OSError) as error:
        raise ModelError(f"the model {request.name!r} cannot be imported: {error}") from error
    factory = getattr(code, attribute, None)
    if not callable(factory):
        known = [name for name in vars(code) if not name.startswith("_")]
        raise ModelError(f"{where} has no function {attribute!r}{closest(attribute, known)}")
    made = factory()
    if isinstance(made, nn.Module):
        made = describe(made)
    if not isinstance(made, LoadedModel):
        raise ModelError(
            f"{request.name} returned a {type(made).__name__}; expected a torch.nn.Module"
        )
    if request.path:
        lacking = filled_but_for_head(made.module, read_weights(request.path), request)
        made = replace(made, unscored=made.unscored or lacking)
    return made


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _demo(request: Request) -> LoadedModel:
    from dff.demo import model

    if request.weights not in (DEFAULT, RANDOM) or request.num_classes is not None:
        raise UsageError("the demo model has weights and classes of its own: leave out --weights")
    own = Preprocessing(size=model.INPUT_SIZE, mean=model.MEAN, std=model.STD)
    return LoadedModel(model.load(), "demo", own, tuple(model.CLASS_NAMES))


SOURCES: dict[str, Callable[[Request], LoadedModel]] = {"timm": _timm, "hf": hugging_face}

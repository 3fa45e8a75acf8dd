"""Which models are supported: build every one with random weights, explain, and write the table.

    python benchmarks/support_table.py                                  # all
    python benchmarks/support_table.py torchvision:resnet18 timm: hf:swin    # some

The rows are kept in support_table.json beside this file; docs/support.md shows all that are.

Models: every classification model of torchvision, the smallest model of every timm family, and
Hugging Face image classifiers built from small configurations; and backbones without a head. For
each one:

- `explain`: layer, layout and input size are found, the concepts of photos come out;
- the layer is a grid: a bright patch that moves takes its response along, at its rate and not
  aside (the library's own check, :mod:`dff.activations.layers.movement`; a layer that fails is
  passed over for an earlier one, and listed with the figure);
- scores at full presence are finite, and differ between concepts;
- contributions add up to the logit: within 1e-4 where closed form, 1% elsewhere;
  a backbone without a head has no scores, and is checked for all the rest;
- nothing is left on the model: hooks, modes, attributes, gradients, weights.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import dff
from dff.errors import DFFError

SIZES = (64, 96, 128, 224)
CONCEPTS = 4
PAGE = Path(__file__).resolve().parents[1] / "docs" / "support.md"
RECORD = Path(__file__).with_name("support_table.json")
NOTES = {
    "hf:levit": " (no connection goes around its last attention, and random weights mix places)",
    "hf:perceiver": " (its latents are no grid: they have no place in the image)",
}


@dataclass(frozen=True)
class Case:
    """A model to build: source ("torchvision", "timm", "hf"), name, and its own input size."""

    source: str
    name: str
    build: Callable[[], nn.Module]
    size: int = 224


@dataclass(frozen=True)
class Row:
    """What a check found; `failure` is empty where everything works."""

    source: str
    name: str
    size: int
    layer: str = ""
    layout: str = ""
    grid: str = ""
    linear: bool = False
    gap: float = float("nan")
    failure: str = ""
    seconds: float = 0.0
    moves: str = ""
    passed: str = ""


class CheckError(Exception):
    """A check that failed, with the reason."""


def check_case(case: Case) -> Row:
    """Build a model and check it at the smallest input size that works."""
    started = time.perf_counter()
    row = Row(case.source, case.name, case.size, failure="not tried")
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sizes = sorted({*(s for s in SIZES if s < case.size), case.size})
            for seed, wake in ((0, False), (0, True), (1, True)):
                torch.manual_seed(seed)
                model = with_live_heads(case.build()).eval()
                model = woken(model, case.size) if wake else model
                for size in sizes:
                    row = check_model(case.source, case.name, model, size)
                    if not row.failure:
                        return replace(row, seconds=time.perf_counter() - started)
            row = replace(row, failure=row.failure + NOTES.get(f"{case.source}:{case.name}", ""))
    except Exception as error:
        row = Row(case.source, case.name, case.size, failure=f"cannot be built: {one_line(error)}")
    return replace(row, seconds=time.perf_counter() - started)


def check_model(source: str, name: str, model: nn.Module, size: int) -> Row:
    """Check a model at one input size."""
    row = Row(source, name, size)
    try:
        before = left_behind(run_once(model, size))
        row, explainer = explained(row, model)
        result = explainer(photos(size), concepts=CONCEPTS)
        row = replace(row, grid="{} x {}".format(*result.photos[0].grid.shape))
        if not result.shared.headless:
            check_scores(result)
            found = result.contributions()
            gap = float(found.relative_gap.max())
            if not gap < (1e-4 if found.linear else 1e-2):
                raise CheckError(f"contributions miss the logit by {gap:.1%}")
            row = replace(row, linear=found.linear, gap=gap)
        if left_behind(model) != before:
            raise CheckError("something was left on the model")
    except (CheckError, DFFError) as error:
        return replace(row, failure=one_line(error))
    return row


def explained(row: Row, model: nn.Module) -> tuple[Row, dff.Explainer]:
    """Make an explainer; note its layer, how far a patch moves it, and what was passed over."""
    prep = dff.Preprocessing(size=row.size, mean=0.5, std=0.25, fixed=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer = dff.Explainer(model, preprocessing=prep)
    info = explainer.layer_info
    assert info.layout is not None
    assert info.movement is not None
    passed = [str(one.message) for one in caught if "shape of a grid" in str(one.message)]
    return replace(
        row,
        layer=info.name,
        layout=str(info.layout).rpartition(", ")[0],
        moves=f"{info.movement.down:.0%} / {info.movement.right:.0%}",
        passed="".join(passed),
    ), explainer


def photos(size: int) -> list[np.ndarray]:
    """Return faint noise with a bright patch: upper left, upper right, lower left."""
    noise = np.random.default_rng(0).integers(90, 110, (size, size, 3)).astype(np.uint8)
    shown = [noise.copy() for _ in range(3)]
    eighth = size // 8
    for photo, (y, x) in zip(shown, ((1, 1), (1, 5), (5, 1)), strict=True):
        photo[y * eighth : (y + 2) * eighth, x * eighth : (x + 2) * eighth] = 255
    return shown


def check_scores(result: dff.Explanation) -> None:
    """Raise unless the concepts have finite scores that differ."""
    logits = result.concept_logits
    if not bool(logits.isfinite().all()):
        raise CheckError("scores are not finite")
    if float(logits.std(0).max()) <= 1e-6 * float(logits.abs().max()):
        raise CheckError("all concepts have the same scores")


def run_once(model: nn.Module, size: int) -> nn.Module:
    """Run a model by itself, for the attributes that some make on their first run."""
    try:
        with torch.no_grad():
            model(torch.rand(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise CheckError(f"the model itself fails: {one_line(error)}") from error
    return model


def left_behind(model: nn.Module) -> list[Any]:
    """Return what a run could leave on a model."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (
            name,
            module.training,
            sorted(vars(module)),
            [list(getattr(module, kind)) for kind in hooks],
            [(p.requires_grad, p.grad is None, p._version) for p in module.parameters(False)],
            [None if b.is_inference() else b._version for b in module.buffers(False)],
        )
        for name, module in model.named_modules()
    ]


def with_live_heads(model: nn.Module) -> nn.Module:
    """Give weights that start as zeros (heads, mostly) small random values."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() >= 2 and not bool(weight.any()):
            nn.init.normal_(weight, std=0.02)
    return model


def woken(model: nn.Module, size: int) -> nn.Module:
    """Make random weights say something where they do not, as those of a trained model would.

    Convolutions that start small get the customary size (He et al. 2015), and BatchNorm the
    statistics of soft random images. Without them the activations of some deep models vanish.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            usual = (2 / module.weight[0].numel()) ** 0.5
            with torch.no_grad():
                module.weight.mul_(max(1.0, usual / float(module.weight.std())))
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            coarse = torch.rand(4, 3, 8, 8) * 6 - 3
            model(nn.functional.interpolate(coarse, (size, size), mode="bilinear"))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.eval()
        norm.momentum = momentum
    return model


def one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


# the models ------------------------------------------------------------------------------------


def torchvision_cases() -> Iterator[Case]:
    """Yield every classification model of torchvision."""
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):
        own = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
        yield Case("torchvision", name, lambda name=name: _torchvision(name), own)


def _torchvision(name: str) -> nn.Module:
    return dff.load_model(name, weights="random").module


def timm_cases() -> Iterator[Case]:
    """Yield the smallest model of every timm family."""
    import timm

    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if names:
            name, size = _smallest(names)
            yield Case("timm", name, lambda name=name: timm.create_model(name), size)


def _smallest(names: list[str]) -> tuple[str, int]:
    """Return the model with the fewest weights, and its input size, without allocating any."""
    import timm

    best = (float("inf"), names[0], 224)
    for name in names:
        try:
            with torch.device("meta"):
                model = timm.create_model(name)
        except Exception:  # some buffers are computed as the model is built
            continue
        count = sum(p.numel() for p in model.parameters())
        size = (model.pretrained_cfg or {}).get("input_size", (3, 224, 224))[-1]
        best = min(best, (count, name, size))
    return best[1], best[2]


def hugging_face_cases() -> Iterator[Case]:
    """Yield Hugging Face image classifiers from small configurations."""
    import transformers as hf

    tiny = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
            "intermediate_size": 96, "image_size": 64, "num_labels": 10}  # fmt: skip
    configs: dict[str, tuple[str, str, dict[str, Any]]] = {
        "vit": ("ViTForImageClassification", "ViTConfig", {**tiny, "patch_size": 8}),
        "deit": ("DeiTForImageClassification", "DeiTConfig", {**tiny, "patch_size": 8}),
        "deit-distilled": (
            "DeiTForImageClassificationWithTeacher", "DeiTConfig", {**tiny, "patch_size": 8}
        ),
        "beit": ("BeitForImageClassification", "BeitConfig", {**tiny, "patch_size": 8}),
        "data2vec": (
            "Data2VecVisionForImageClassification", "Data2VecVisionConfig",
            {**tiny, "patch_size": 8},
        ),
        "dinov2": (
            "Dinov2ForImageClassification", "Dinov2Config", {**tiny, "patch_size": 8}
        ),
        "dinov2-registers": (
            "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig",
            {**tiny, "patch_size": 8},
        ),
        "siglip": (
            "SiglipForImageClassification", "SiglipConfig",
            {"vision_config": {**tiny, "patch_size": 8}, "num_labels": 10},
        ),
        "clip": (
            "CLIPForImageClassification", "CLIPConfig",
            {"vision_config": {**tiny, "patch_size": 8}, "num_labels": 10},
        ),
        "ijepa": ("IJepaForImageClassification", "IJepaConfig", {**tiny, "patch_size": 8}),
        "vit-msn": ("ViTMSNForImageClassification", "ViTMSNConfig", {**tiny, "patch_size": 8}),
        "hiera": (
            "HieraForImageClassification", "HieraConfig", {"image_size": [224, 224]},
        ),
        "swin": (
            "SwinForImageClassification", "SwinConfig",
            {"image_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 24,
             "depths": [1, 1, 2], "num_heads": [2, 2, 4], "num_labels": 10},
        ),
        "swinv2": (
            "Swinv2ForImageClassification", "Swinv2Config",
            {"image_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 24,
             "depths": [1, 1, 2], "num_heads": [2, 2, 4], "num_labels": 10},
        ),
        "donut-swin": (
            "DonutSwinForImageClassification", "DonutSwinConfig",
            {"image_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 24,
             "depths": [1, 1, 2], "num_heads": [2, 2, 4], "num_labels": 10},
        ),
        "pvt": ("PvtForImageClassification", "PvtConfig", {"num_labels": 10}),
        "pvt-v2": ("PvtV2ForImageClassification", "PvtV2Config", {"num_labels": 10}),
        "segformer": ("SegformerForImageClassification", "SegformerConfig", {"num_labels": 10}),
        "mobilevit": (
            "MobileViTForImageClassification", "MobileViTConfig", {"num_labels": 10}
        ),
        "mobilevit-v2": (
            "MobileViTV2ForImageClassification", "MobileViTV2Config", {"num_labels": 10}
        ),
        "cvt": ("CvtForImageClassification", "CvtConfig", {"num_labels": 10}),
        "levit": ("LevitForImageClassification", "LevitConfig", {"num_labels": 10}),
        "poolformer": (
            "PoolFormerForImageClassification", "PoolFormerConfig", {"num_labels": 10}
        ),
        "focalnet": ("FocalNetForImageClassification", "FocalNetConfig", {"num_labels": 10}),
        "swiftformer": (
            "SwiftFormerForImageClassification", "SwiftFormerConfig", {"num_labels": 10}
        ),
        "convnext": (
            "ConvNextForImageClassification", "ConvNextConfig",
            {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_labels": 10},
        ),
        "convnext-v2": (
            "ConvNextV2ForImageClassification", "ConvNextV2Config",
            {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_labels": 10},
        ),
        "resnet": (
            "ResNetForImageClassification", "ResNetConfig",
            {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1],
             "num_labels": 10},
        ),
        "regnet": (
            "RegNetForImageClassification", "RegNetConfig",
            {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1],
             "groups_width": 8, "num_labels": 10},
        ),
        "bit": (
            "BitForImageClassification", "BitConfig",
            {"embedding_size": 32, "hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1],
             "num_groups": 8, "num_labels": 10},
        ),
        "efficientnet": (
            "EfficientNetForImageClassification", "EfficientNetConfig",
            {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280,
             "image_size": 224, "num_labels": 10},
        ),
        "mobilenet-v1": (
            "MobileNetV1ForImageClassification", "MobileNetV1Config", {"num_labels": 10}
        ),
        "mobilenet-v2": (
            "MobileNetV2ForImageClassification", "MobileNetV2Config", {"num_labels": 10}
        ),
        "van": ("VanForImageClassification", "VanConfig", {"num_labels": 10}),
        "perceiver": (
            "PerceiverForImageClassificationConvProcessing", "PerceiverConfig",
            {"num_labels": 10, "num_latents": 16, "d_latents": 64, "num_blocks": 1,
             "num_self_attends_per_block": 2, "num_cross_attention_heads": 1},
        ),
        "textnet": ("TextNetForImageClassification", "TextNetConfig", {"num_labels": 10}),
        "hgnet-v2": ("HGNetV2ForImageClassification", "HGNetV2Config", {"num_labels": 10}),
    }  # fmt: skip
    for name, (model, config, options) in configs.items():
        if hasattr(hf, model):
            built = getattr(hf, config)
            size = _own_size(options)
            yield Case("hf", name, lambda m=model, c=built, o=options: getattr(hf, m)(c(**o)), size)


def backbone_cases() -> Iterator[Case]:
    """Yield backbones without a head, of Hugging Face (small configurations) and of timm."""
    import timm
    import transformers as hf

    tiny = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
            "intermediate_size": 96, "image_size": 64, "patch_size": 8}  # fmt: skip
    configs = {
        "Dinov2Model": ("Dinov2Config", tiny),
        "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", tiny),
        "DINOv3ViTModel": ("DINOv3ViTConfig", tiny),
        "ViTModel": ("ViTConfig", tiny),
        "CLIPVisionModel": ("CLIPVisionConfig", tiny),
        "CLIPVisionModelWithProjection": ("CLIPVisionConfig", tiny),
        "SiglipVisionModel": ("SiglipVisionConfig", tiny),
        "ConvNextModel": ("ConvNextConfig", {}),
        "ResNetModel": ("ResNetConfig", {}),
    }
    for name, (config, options) in configs.items():
        if hasattr(hf, name):
            built = getattr(hf, config)
            size = _own_size(options)
            yield Case(
                "backbone", name, lambda m=name, c=built, o=options: getattr(hf, m)(c(**o)), size
            )
    for name, size in (
        ("vit_small_patch14_dinov2", 56),
        ("vit_small_patch14_reg4_dinov2", 56),
        ("vit_small_patch16_dinov3", 64),
        ("vit_base_patch16_siglip_224", 64),
        ("vit_base_patch16_224.mae", 64),
    ):
        build = lambda n=name, s=size: timm.create_model(n, num_classes=0, img_size=s)  # noqa: E731
        yield Case("backbone", name, build, size)


def _own_size(options: dict[str, Any]) -> int:
    size = options.get("image_size") or options.get("vision_config", {}).get("image_size", 224)
    return int(size[0] if isinstance(size, list) else size)


SOURCES = {"torchvision": torchvision_cases, "hf": hugging_face_cases, "timm": timm_cases,
           "backbone": backbone_cases}  # fmt: skip


def all_cases(wanted: list[str]) -> Iterator[Case]:
    """Yield the models whose "source:name" contains one of the words; all without words."""
    for source, cases in SOURCES.items():
        if wanted and not any(word.partition(":")[0] in (source, word) for word in wanted):
            continue
        for case in cases():
            if not wanted or any(word in f"{source}:{case.name}" for word in wanted):
                yield case


# the page --------------------------------------------------------------------------------------

TITLES = {
    "torchvision": "torchvision: all classification models",
    "timm": "timm: the smallest model of every family",
    "hf": "Hugging Face: image classifiers from small configurations",
    "backbone": "Backbones without a head: Hugging Face's and timm's",
}


def page(rows: list[Row]) -> str:
    """Return the support table as Markdown."""
    lines = [
        "# Which models are supported",
        "",
        "Made by `python benchmarks/support_table.py`, which builds every model with random",
        "weights, at the smallest input size that works, and checks: the layer and its layout are",
        "found, and the layer is a grid of the image (moves: how far a bright patch that moves",
        "takes its response along, down and to the right, as shares of its own way; it must be",
        "60% to 150%, at most 25% aside), concepts have maps, and scores where there is a head,",
        "contributions add up to the logit (gap: what they miss, relative), nothing is left on the",
        "model. Nothing is configured for any model.",
        f"The checks of all {len(rows)} took {sum(row.seconds for row in rows) / 60:.0f} minutes.",
        "",
    ]
    for source, title in TITLES.items():
        mine = [row for row in rows if row.source == source]
        if not mine:
            continue
        good = [row for row in mine if not row.failure]
        lines += [
            f"## {title}",
            "",
            f"{len(good)} of {len(mine)} ({len(good) / len(mine):.0%}).",
            "",
        ]
        if failed := [row for row in mine if row.failure]:
            lines += ["Not supported:", ""]
            lines += [f"- `{row.name}` ({row.size} px): {row.failure}" for row in failed] + [""]
        if passed := [row for row in good if row.passed]:
            lines += ["Layers passed over, as a moved patch does not move in them:", ""]
            lines += [f"- `{row.name}`: {row.passed}" for row in passed] + [""]
        lines += [
            "| model | input | layer found | layout | grid | moves | contributions | gap |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {r.name} | {r.size} | `{r.layer}` | {r.layout} | {r.grid} | {r.moves} | {_way(r)} |"
            for r in good
        ]
        lines.append("")
    return "\n".join(lines)


def _way(row: Row) -> str:
    if row.gap != row.gap:
        return "no head | –"
    return f"{'closed form' if row.linear else 'integrated'} | {row.gap:.0e}"


def main(wanted: list[str]) -> int:
    """Check the models that are wanted; print a line each, record them, and write the page."""
    known = {}
    if wanted and RECORD.exists():
        known = {(r["source"], r["name"]): Row(**r) for r in json.loads(RECORD.read_text())}
    started = time.perf_counter()
    for count, case in enumerate(all_cases(wanted), 1):
        row = check_case(case)
        known[row.source, row.name] = row
        print(
            f"{count:3} {row.source + ':' + row.name:44} {row.size:4} {row.layer:32} "
            f"{row.layout:14} {row.grid:8} {row.gap:8.1e} {row.seconds:6.1f}s  {row.failure}",
            flush=True,
        )
        gc.collect()
        RECORD.write_text(json.dumps([asdict(r) for r in known.values()], indent=1) + "\n")
    print(f"{time.perf_counter() - started:.0f} s")
    PAGE.write_text(page(list(known.values())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

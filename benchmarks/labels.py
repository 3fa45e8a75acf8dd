"""Are the labels of concepts right, and is their confidence? Ours and pytorch-grad-cam's.

    python benchmarks/labels.py ../shared                # 100 mosaics, 60 scenes, 109 horses
    python benchmarks/labels.py ../shared --mosaics 20 --scenes 20 --horses 20

Both look at the same pictures, through the same models, for six concepts (horses: five, as
`dff analyze` does). Ours is `result.labels()`; pytorch-grad-cam's is the softmax of the head on its
concepts, as its tutorial labels them. Every one of a peer's concepts has a label; ours may say that
a concept speaks for none, and the share of those that do is the first column.

- mosaics: two photos side by side, one class each. Of concepts that lie on one of them (85% of
  their map or more): is the label that photo's class (first, among three), or the other's?
- scenes: three creatures of which some parts are shared by several species. Of concepts on animals
  (half of their map or more): what share of it, as far as it lies on animals, lies on parts that
  the species of the label has?
- horses: how many concepts on the horse (60% of their map or more), and how many on the ground
  (25% or less) have a label?

The expected calibration error (ECE) is over ten equal bins of the first label's confidence; in
scenes a label counts as right if a creature of that species is there.

The rule was chosen on the other half of the photos of each folder and on scenes of other seeds.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import dff
from dff.demo import creatures
from dff.demo.species import SPECIES
from dff.images import read_image
from dff.maps import upsample

try:
    from pytorch_grad_cam import DeepFeatureFactorization as PeerDFF
except ImportError:  # then ours stands alone
    PeerDFF = None

SIDE = 300
ON_ONE, ON_ANIMAL, ON_HORSE, OFF_HORSE = 0.85, 0.5, 0.6, 0.25
FIRST_SCENE = 8_000_000


@dataclass(frozen=True)
class Concept:
    """Where a concept is, float (height, width) >= 0, and its three first classes; none of some."""

    heatmap: np.ndarray
    classes: tuple[int, ...] = ()
    confidence: float = 0.0


Method = Callable[[np.ndarray, int], list[Concept]]


def ours(explainer: dff.Explainer) -> Method:
    def method(picture: np.ndarray, k: int) -> list[Concept]:
        result = explainer(picture, concepts=k, cam=False)
        return [
            Concept(m, tuple(x.index for x in said), said[0].confidence if said else 0.0)
            for m, said in zip(result.heatmaps(), result.labels(), strict=True)
        ]

    return method


def peers(explainer: dff.Explainer, head: nn.Module) -> Method:
    layer = explainer.model.get_submodule(explainer.layer)
    labelled = PeerDFF(model=explainer.model, target_layer=layer, computation_on_concepts=head)

    def method(picture: np.ndarray, k: int) -> list[Concept]:
        x = explainer.preprocessing.to_tensor(read_image(picture))[None].contiguous()
        _, maps, outputs = labelled(x, k)
        scores = torch.from_numpy(outputs).softmax(-1)
        size = picture.shape[:2]
        return [
            Concept(upsample(m[None], size)[0], tuple(s.topk(3).indices.tolist()), float(s.max()))
            for m, s in zip(maps[0].astype(np.float32), scores, strict=True)
        ]

    return method


def square(path: Path) -> np.ndarray:
    """Return the middle square of a photo, (SIDE, SIDE, 3)."""
    photo = Image.open(path).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(photo.crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def pairs(photos: Sequence[Path], count: int) -> Iterator[tuple[Path, Path]]:
    generator = random.Random(1)
    found: list[tuple[Path, Path]] = []
    while len(found) < count:
        order = generator.sample(photos, len(photos))
        found += zip(order[::2], order[1::2], strict=False)
    yield from found[:count]


def error(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Return the expected calibration error over ten bins."""
    sure, good = np.array(confidence), np.array(right, float)
    bins = np.minimum((sure * 10).astype(int), 9)
    return float(sum(abs((sure - good)[bins == b].sum()) for b in range(10)) / max(1, len(sure)))


def on_mosaics(method: Method, photos: Sequence[Path], count: int) -> str:
    rows, asked = [], 0
    for pair in pairs(photos, count):
        classes = [int(path.name[:4]) for path in pair]
        for concept in method(np.hstack([square(path) for path in pair]), 6):
            left = concept.heatmap[:, :SIDE].sum() / max(concept.heatmap.sum(), 1e-9)
            if 1 - ON_ONE < left < ON_ONE:
                continue
            asked += 1
            own, other = classes if left > 0.5 else classes[::-1]
            if concept.classes:
                first = concept.classes[0]
                rows.append((first == own, own in concept.classes, first == other,
                             concept.confidence))  # fmt: skip
    first, three, other, sure = np.array(rows, float).T
    return (
        f"{len(rows) / asked:9.1%} of {asked:4}{first.mean():8.1%}{three.mean():8.1%}"
        f"{other.mean():8.1%}{sure.mean():8.2f}{error(sure, first > 0):7.3f}"
    )


def on_scenes(method: Method, count: int) -> str:
    kinds = [species.kinds() for species in SPECIES.values()]
    shares, sure, right, asked = [], [], [], 0
    for seed in range(FIRST_SCENE, FIRST_SCENE + count):
        scene = creatures.render(seed, count=3)
        animals = np.any([animal.mask for animal in scene.animals], 0)
        there = {animal.label for animal in scene.animals}
        for concept in method(scene.image, 6):
            on = (concept.heatmap * animals).sum()
            if on < ON_ANIMAL * concept.heatmap.sum():
                continue
            asked += 1
            if not concept.classes:
                continue
            label = concept.classes[0]
            parts = [
                mask
                for animal in scene.animals
                for part, mask in animal.parts.items()
                if kinds[label].get(part) == animal.kinds[part]
            ]
            owned = np.any(parts, 0) if parts else np.zeros_like(animals)
            shares.append((concept.heatmap * owned).sum() / max(on, 1e-9))
            sure.append(concept.confidence)
            right.append(label in there)
    return (
        f"{len(shares) / asked:9.1%} of {asked:4}{np.mean(shares):8.2f}{np.mean(right):8.1%}"
        f"{np.mean(sure):16.2f}{error(sure, right):7.3f}"
    )


def on_horses(method: Method, folder: Path, count: int) -> str:
    said: dict[bool, list[bool]] = {True: [], False: []}
    for path in sorted((folder / "images").glob("*.jpg"))[1::2][:count]:
        mask = np.asarray(Image.open(folder / "masks" / f"{path.stem}.png").convert("L")) > 127
        for concept in method(np.asarray(Image.open(path).convert("RGB")), 5):
            on = (concept.heatmap * mask).sum() / max(concept.heatmap.sum(), 1e-9)
            if on >= ON_HORSE or on <= OFF_HORSE:
                said[bool(on >= ON_HORSE)].append(bool(concept.classes))
    horse, ground = said[True], said[False]
    return f"{np.mean(horse):9.1%} of {len(horse):4}{np.mean(ground):17.1%} of {len(ground)}"


def networks(shared: Path) -> Iterator[tuple[str, dff.Explainer, nn.Module]]:
    labels = shared / "models/imagenet_labels.txt"
    loaded = dff.load_model(
        "mobilenet_v2", weights=shared / "models/mobilenet_v2_imagenet.safetensors",
        labels=labels, mean=0.5, std=0.5, size=225,
    )  # fmt: skip
    yield "MobileNetV2", dff.Explainer(loaded), loaded.module.classifier
    loaded = dff.load_model(
        "timm:tf_efficientnet_lite0", labels=labels,
        weights=shared / "models/tf_efficientnet_lite0_imagenet.safetensors",
    )  # fmt: skip
    yield "EfficientNet-Lite0", dff.Explainer(loaded), loaded.module.classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="the folder with models and photos")
    parser.add_argument("--mosaics", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--horses", type=int, default=109)
    asked = parser.parse_args()
    if PeerDFF is None:
        print("pytorch-grad-cam is not installed: ours alone", file=sys.stderr)

    def methods(explainer: dff.Explainer, head: nn.Module) -> dict[str, Method]:
        found = {"ours": ours(explainer)}
        return found if PeerDFF is None else {**found, "grad-cam": peers(explainer, head)}

    photos = sorted((asked.shared / "data/imagenet-sample").glob("*.jpg"))[1::2]
    print(f"{'':32}{'labelled':>14}{'first':>10}{'three':>8}{'other':>8}{'sure':>8}{'ECE':>7}")
    for name, explainer, head in networks(asked.shared):
        for who, method in methods(explainer, head).items():
            print(f"mosaics  {name:18} {who:9}", on_mosaics(method, photos, asked.mosaics))
    print(f"{'':32}{'labelled':>14}{'share':>10}{'there':>8}{'':8}{'sure':>8}{'ECE':>7}")
    demo = dff.Explainer("demo")
    for who, method in methods(demo, demo.model.fc).items():
        print(f"scenes   {'demo':18} {who:9}", on_scenes(method, asked.scenes))
    print(f"{'':32}{'on the horse':>17}{'on the ground':>18}")
    for name, explainer, head in networks(asked.shared):
        for who, method in methods(explainer, head).items():
            found = on_horses(method, asked.shared / "data/horses", asked.horses)
            print(f"horses   {name:18} {who:9}", found)


if __name__ == "__main__":
    main()

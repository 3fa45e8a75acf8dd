"""Which method finds the parts of animals? Concepts against parts that are known.

    python benchmarks/part_discovery.py                    # 500 creatures, k from 4 to 12
    python benchmarks/part_discovery.py --images 120 --concepts 6,9
    python benchmarks/part_discovery.py --concepts auto    # is the number chosen that of the parts?

Protocol
--------
Creatures (single animals at 128 px) that the embedded model never saw are run through it once;
every method gets the same activations of the same layer. A method looks for k concepts that all
images of a species share (``--shared-by species``, the default: co-localization in a set of
images of one kind of thing, 12 sets in all) or that all images share (``--shared-by all``), and
gives k maps for each image, as large as the image. In each set, concepts are matched to the parts
of the animals once, one to one, so that the sum of IoU is greatest (``dff.metrics``). An IoU
pools the pixels of all images of a set. The figures are means over all parts and then over sets:

- mean part IoU; a part without a concept, as when k is less than the number of parts, counts 0;
- CorLoc: in how many of the images that show a part the box around its concept's mask (around its
  largest piece) has an IoU of at least 0.5 with the part's box.

Maps become masks. Ours do so by one fixed rule, for every k. A peer has no rule of its own, so it
gets for every k, and for either figure, the best of several, chosen with the truth in sight:
above half, above Otsu's threshold of the map, above 0.35, 0.4, 0.45 or 0.5 of the map's own peak,
the strongest concept at each pixel, and that where it is also above 0.4 of its peak.

Methods
-------
- ours: the concepts and masks that users get: ``dff.concepts.factorize``, full presence over the
  set, and ``dff.maps.masks_of`` with ``threshold="peak"``, for small parts.
- grad-cam dff: pytorch-grad-cam's factorization and its scaling (each map by its own range).
- k-means: scikit-learn's, on the cells' activations; a map is how near a pixel is to the cluster.
- PCA: scikit-learn's; the side of each component that has the longer tail.
- Grad-CAM: of the k classes that the model finds most probable, pytorch-grad-cam's scaling. (The
  head is linear on pooled maps, so its gradients are the head's weights.)
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import concept_peers
import numpy as np
import torch
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff as peer_dff
from pytorch_grad_cam.utils.image import scale_cam_image

from dff.activations import intercept
from dff.activations.layers import probe_input, survey
from dff.activations.layers.geometry import Geometry
from dff.concepts import choose_components, factorize
from dff.demo import creatures, model
from dff.maps import MaskOptions, masks_of, otsu, upsample
from dff.metrics import part_agreement

SIZE = model.INPUT_SIZE
PARTS = MaskOptions(threshold="peak", components="all")
FIRST_SEED = 3_000_000  # the model was trained on seeds below 1,000,000


@dataclass(frozen=True)
class Set:
    """Images that share concepts: pixels (n, 128, 128, 3), maps (n, c, h, w), parts (n, p, …)."""

    pixels: np.ndarray
    maps: np.ndarray
    logits: np.ndarray
    head: np.ndarray
    parts: np.ndarray
    part_names: tuple[str, ...]
    labels: np.ndarray

    @property
    def cells(self) -> np.ndarray:
        """A (n·h·w, c)."""
        channels = self.maps.shape[1]
        return np.ascontiguousarray(self.maps.transpose(0, 2, 3, 1).reshape(-1, channels))

    def on_grid(self, coefficients: np.ndarray) -> np.ndarray:
        """Return coefficients (n·h·w, k) as maps (n, k, h, w)."""
        n, _, h, w = self.maps.shape
        return coefficients.reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def some(self, rows: np.ndarray) -> Set:
        """Return the images of the given rows, and the parts that occur in them."""
        parts = self.parts[rows]
        there = parts.any((0, 2, 3))
        return Set(
            self.pixels[rows],
            self.maps[rows],
            self.logits[rows],
            self.head,
            parts[:, there],
            tuple(n for n, t in zip(self.part_names, there, strict=True) if t),
            self.labels[rows],
        )


def ours(data: Set, k: int) -> np.ndarray:
    """Return masks (n, k, 128, 128) as ``result.masks(PARTS)`` gives them."""
    bank, coefficients = factorize(torch.from_numpy(data.cells), k)
    maps = bank.presence(torch.from_numpy(data.on_grid(coefficients.numpy()))).numpy()
    grid = geometry().grid(*maps.shape[-2:], (SIZE, SIZE))
    return np.stack(
        [
            [
                mask.drawn()
                for mask in masks_of(concepts, grid, (SIZE, SIZE), PARTS, guide=picture)[0]
            ]
            for concepts, picture in zip(maps, data.pixels, strict=True)
        ]
    )


@cache
def geometry() -> Geometry:
    """Return how the cells of the demo model's layer lie over its input."""
    network = model.load().eval()
    surveyed = survey(network, probe_input((SIZE, SIZE), network))
    return surveyed.geometry(surveyed.default().name)


def grad_cam_dff(data: Set, k: int) -> np.ndarray:
    """Return maps of pytorch-grad-cam's factorization, scaled as its class does."""
    _, maps = peer_dff(data.maps.copy(), k)
    return np.stack([scale_cam_image(one, (SIZE, SIZE)) for one in maps])


def k_means(data: Set, k: int) -> np.ndarray:
    """Return, for every cluster, the share of the cells around a pixel that belong to it."""
    member = data.on_grid(concept_peers.k_means(data.cells, k, n_init=1))
    return upsample(np.ascontiguousarray(member), (SIZE, SIZE))


def pca(data: Set, k: int) -> np.ndarray:
    """Return principal components, each turned so that its longer tail is positive."""
    scores = concept_peers.principal_scores(data.cells, k)
    scores = np.maximum(scores * np.sign((scores**3).sum(0)), 0)
    maps = data.on_grid(scores / np.maximum(np.quantile(scores, 0.999, axis=0), 1e-9))
    return upsample(np.ascontiguousarray(maps.astype(np.float32)), (SIZE, SIZE))


def grad_cam(data: Set, k: int) -> np.ndarray:
    """Return Grad-CAM of each image's k most probable classes."""
    classes = np.argsort(-data.logits, axis=1)[:, :k]
    maps = np.maximum(np.einsum("nkc,nchw->nkhw", data.head[classes], data.maps), 0)
    return np.stack([scale_cam_image(one, (SIZE, SIZE)) for one in maps])


def strongest(maps: np.ndarray) -> np.ndarray:
    """Return where each concept is the strongest one."""
    winner = maps.argmax(1)[:, None] == np.arange(maps.shape[1])[None, :, None, None]
    return winner & (maps > 0)


def above_otsu(maps: np.ndarray) -> np.ndarray:
    """Return where each map is above Otsu's threshold of its own."""
    clipped = np.clip(maps, 0, 1)
    return clipped > otsu(clipped)[..., None, None]


def near_peak(maps: np.ndarray, share: float, least: float = 0.0) -> np.ndarray:
    """Return where each map (..., h, w) is above a share of its own peak, as a boolean array.

    A map whose peak is not above `least` has an empty mask: its concept is absent.
    """
    peaks = maps.max((-2, -1), keepdims=True)
    return np.asarray((maps > share * peaks) & (peaks > least))


PEERS: dict[str, Callable[[Set, int], np.ndarray]] = {
    "grad-cam dff": grad_cam_dff,
    "k-means": k_means,
    "PCA": pca,
    "Grad-CAM": grad_cam,
}
RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half": lambda maps: maps > 0.5,
    "otsu": above_otsu,
    **{f"{share} of peak": partial(near_peak, share=share) for share in (0.35, 0.4, 0.45, 0.5)},
    "strongest": strongest,
    "strongest, 0.4 of peak": lambda maps: strongest(maps) & near_peak(maps, 0.4),
}


def collect(count: int, layer: str) -> Set:
    """Render creatures and run the model on them, once."""
    scenes = [creatures.render(FIRST_SEED + i, size=SIZE) for i in range(count)]
    pixels = np.stack([scene.image for scene in scenes])
    parts = np.zeros((count, len(creatures.PARTS), SIZE, SIZE), bool)
    for row, scene in zip(parts, scenes, strict=True):
        for name, mask in scene.parts.items():
            row[creatures.PARTS.index(name)] = mask
    network, kept, logits = model.load(), [], []
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.MEAN, model.STD))
    inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std

    def keep(maps: torch.Tensor) -> torch.Tensor:
        kept.append(maps.clone())
        return maps

    with torch.inference_mode():
        for batch in inputs.split(50):
            logits.append(intercept(network, layer, keep, batch))
    return Set(
        pixels,
        torch.cat(kept).numpy(),
        torch.cat(logits).numpy(),
        network.fc.weight.detach().numpy(),
        parts,
        creatures.PARTS,
        np.array([scene.animals[0].label for scene in scenes]),
    )


def score(sets: list[Set], method: str, k: int) -> dict[str, float]:
    """Return the figures of a method: means over sets, of the best rule for peers."""
    rules = RULES if method != "ours" else {"ours": lambda masks: masks}
    function = PEERS.get(method, ours)
    found: dict[str, list[tuple[float, float]]] = {rule: [] for rule in rules}
    for data in sets:
        maps = function(data, k)
        for name, rule in rules.items():
            result = part_agreement(rule(maps), data.parts, part_names=data.part_names)
            found[name].append((result.mean_iou, result.mean_corloc))
    means = np.array([np.mean(values, axis=0) for values in found.values()])
    return {"iou": float(means[:, 0].max()), "corloc": float(means[:, 1].max())}


def print_chosen(sets: list[Set]) -> None:
    """Print how many concepts are chosen for each set, beside how many parts there are."""
    near = 0
    for data in sets:
        chosen = choose_components(data.cells).chosen
        near += abs(chosen - len(data.part_names)) <= 1
        print(f"{len(data.labels)} images, {len(data.part_names)} parts: {chosen} concepts")
    print(f"within 1 of the parts: {near} of {len(sets)} sets")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument(
        "--concepts", default="4,5,6,7,8,9,10,11,12", help="numbers, with commas; auto"
    )
    parser.add_argument("--layer", default="layer4")
    parser.add_argument("--shared-by", choices=("species", "all"), default="species")
    parser.add_argument("--methods", default="", help="names, with commas; default: all")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    data = collect(args.images, args.layer)
    groups = (
        [data]
        if args.shared_by == "all"
        else [data.some(np.flatnonzero(data.labels == label)) for label in np.unique(data.labels)]
    )
    if args.concepts == "auto":
        print_chosen(groups)
        return
    numbers = [int(k) for k in args.concepts.split(",")]
    names = args.methods.split(",") if args.methods else ["ours", *PEERS]
    figures: dict[str, dict[str, list[float]]] = {}
    for name in names:
        started = time.perf_counter()
        rows = [score(groups, name, k) for k in numbers]
        figures[name] = {key: [row[key] for row in rows] for key in ("iou", "corloc")}
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    for key, title in (("iou", "mean part IoU"), ("corloc", "CorLoc")):
        print(f"\n{title:24}" + "".join(f"  k={k:<3}" for k in numbers))
        for name, values in figures.items():
            print(f"{name:24}" + "".join(f"  {v:.3f}" for v in values[key]))
    if args.json:
        args.json.write_text(json.dumps({"concepts": numbers, **figures}, indent=2))


if __name__ == "__main__":
    main()

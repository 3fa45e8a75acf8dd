"""Whose order of concepts is the most faithful to the model, and do contributions add up?

    python benchmarks/faithfulness.py                     # 200 creatures, 200 photos
    python benchmarks/faithfulness.py --images 40 --concepts 8

Protocol
--------
Images: creatures that the embedded model never saw, and, where ``../shared`` is, its ImageNet
photos with MobileNetV2. Each image is factorized on its own into k concepts at the default layer,
and, for completeness, at an earlier layer after which the model is not linear. The class is the
one that the model finds likeliest.

Deletion: concepts are taken out of the activations (A - Wₖ·Hₖ; what no concept explains stays)
one by one, the most important first, and the probability of the class is watched; the area under
the curve is small where the order is right. Insertion is the same backwards, and large is right.
All orders are of the same concepts:

- ours: by contribution (closed form or integrated gradients).
- CRAFT: by total Sobol index of the class's logit (Jansen's estimator, 32 designs, as its authors
  have it: the head on W·H alone; "+": the sign is unknown to it).
- grad-cam score: by the softmax score of the bare embedding, as pytorch-grad-cam labels concepts
  (``computation_on_concepts``; the factors scaled alike, as its own random start leaves them).
- share: by the share of the activations that a concept explains.
- random: mean of 10 orders.
- best: of all orders for k up to 6 (deletion); what can be reached.

Completeness: the gap between the model's logit and the sum, relative (see ``Contributions``).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

import dff
from dff import scoring
from dff.demo import creatures
from dff.explain.questions.evidence import logit_mixtures, rest_of_model
from dff.scoring.faithfulness import concept_curve

SHARED = Path(__file__).resolve().parents[2] / "shared"
FIRST_SEED = 900_000
RANDOM_ORDERS = 10


def creature_images(count: int) -> Iterator[np.ndarray]:
    """Yield creatures that the model was not trained on."""
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        yield creatures.render(seed).image


def settings(count: int) -> dict[str, tuple[dff.Explainer, dff.Explainer, list]]:
    """Return for each model: the explainer, one at an earlier layer, and the images."""
    found = {}
    demo = dff.load_model("demo")
    found["demo creatures"] = (
        dff.Explainer(demo),
        dff.Explainer(demo, layer="layer3"),
        list(creature_images(count)),
    )
    if SHARED.is_dir():
        loaded = dff.load_model(
            "mobilenet_v2",
            weights=SHARED / "models" / "mobilenet_v2_imagenet.safetensors",
            labels=SHARED / "models" / "imagenet_labels.txt",
            mean=0.5,
            std=0.5,
            size=225,
        )
        photos = sorted((SHARED / "data" / "imagenet-sample").glob("*.jpg"))[:count]
        found["MobileNetV2, ImageNet photos"] = (
            dff.Explainer(loaded),
            dff.Explainer(loaded, layer="features.14"),
            photos,
        )
    return found


def orders(result: dff.Explanation, target: int) -> dict[str, list[int]]:
    """Return each method's order of the concepts, the most important first."""
    photo = result.photos[0]
    _, weights = logit_mixtures(photo, target)
    forward, w = rest_of_model(photo)
    bank, tail = photo.bank, photo.tail

    def without_rest(x: torch.Tensor) -> torch.Tensor:
        return tail(scoring.rebuild(x, bank.components))

    balance = (w.flatten(1).norm(dim=1) / bank.components.norm(dim=1).clamp_min(1e-12)).sqrt()
    bare = (bank.components * balance[:, None])[:, :, None, None]
    with torch.no_grad():
        scores = tail(bare.expand(-1, -1, *w.shape[1:]).contiguous()).softmax(1)[:, target]
    values = {
        "ours": scoring.split_logits(forward, w, weights).values[0],
        "CRAFT (Sobol)": scoring.sobol(without_rest, w, weights)[0],
        "grad-cam score": scores,
        "share": bank.shares,
    }
    return {name: v.argsort(descending=True, stable=True).tolist() for name, v in values.items()}


def measure(result: dff.Explanation, target: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return (deletion, insertion) AUC of each order of one image's concepts."""
    forward, w = rest_of_model(result.photos[0])

    def areas(order: Sequence[int]) -> tuple[float, float]:
        return tuple(
            concept_curve(forward, w, order, target, mode=mode).auc
            for mode in ("deletion", "insertion")
        )

    found = {name: areas(order) for name, order in orders(result, target).items()}
    generator = np.random.default_rng(seed)
    drawn = [areas(generator.permutation(len(w)).tolist()) for _ in range(RANDOM_ORDERS)]
    found["random"] = tuple(np.mean(drawn, 0))
    if len(w) <= 6:
        found["best"] = best(forward, w, target)
    return found


def best(forward: scoring.Forward, w: torch.Tensor, target: int) -> tuple[float, float]:
    """Return the smallest deletion and largest insertion AUC of all orders, from all subsets."""
    k = len(w)
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=k)))
    with torch.no_grad():
        p = forward(masks[:, :, None, None].to(w) * w).softmax(1)[:, target]
    values = p.double().numpy()
    bits = [1 << (k - 1 - i) for i in range(k)]
    full = (1 << k) - 1
    low, high = np.inf, -np.inf
    for order in itertools.permutations(range(k)):
        for mode, state in (("deletion", full), ("insertion", 0)):
            path = [values[state]]
            for i in order:
                state ^= bits[i]
                path.append(values[state])
            area = (sum(path) - (path[0] + path[-1]) / 2) / k
            low = min(low, area) if mode == "deletion" else low
            high = max(high, area) if mode == "insertion" else high
    return low, high


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--concepts", type=int, default=6)
    options = parser.parse_args()
    for title, (explainer, earlier, images) in settings(options.images).items():
        started = time.perf_counter()
        table: dict[str, list[tuple[float, float]]] = defaultdict(list)
        gaps: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for seed, image in enumerate(images):
            result = explainer(image, concepts=options.concepts)
            target = result.target()
            for name, areas in measure(result, target, seed).items():
                table[name].append(areas)
            for ready, one in ((explainer, result), (earlier, None)):
                one = one or ready(image, concepts=options.concepts)
                split = one.contributions()
                how = "closed form" if split.linear else "integrated"
                gaps[f"{ready.layer} ({how})"].append((float(split.relative_gap[0]), split.steps))
        report(title, table, gaps, options.concepts, time.perf_counter() - started)


def report(title: str, table: dict, gaps: dict, concepts: int, seconds: float) -> None:
    """Print one model's tables."""
    count = len(table["ours"])
    print(f"\n{title}: {count} images, {concepts} concepts each, {seconds:.0f} s\n")
    print(f"{'order':18}{'deletion AUC':>14}{'insertion AUC':>15}   ours lower/equal/higher")
    ours = np.array(table["ours"])
    for name, areas in sorted(table.items(), key=lambda item: np.mean([a for a, _ in item[1]])):
        found = np.array(areas)
        gap = found[:, 0] - ours[:, 0]
        counts = [(gap > 1e-6).sum(), (abs(gap) <= 1e-6).sum(), (gap < -1e-6).sum()]
        print(
            f"{name:18}{found[:, 0].mean():14.4f}{found[:, 1].mean():15.4f}   "
            + "/".join(str(int(c)) for c in counts)
        )
    print(f"\n{'completeness at':32}{'images':>8}{'mean gap':>11}{'largest':>11}{'steps':>7}")
    for name, found in gaps.items():
        values = np.array(found)
        print(
            f"{name:32}{len(values):8}{values[:, 0].mean():11.1e}{values[:, 0].max():11.1e}"
            f"{values[:, 1].mean():7.1f}"
        )


if __name__ == "__main__":
    main()

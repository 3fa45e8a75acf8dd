"""Creatures with known parts: this project's runs, and pytorch-grad-cam's batch factorization.

Both factorize the same layer of the demo model over the same images with as many concepts; masks
are made with the same threshold (Otsu), and scored with the same code. What differs is what the
peer does to its maps: each map of each image is stretched to its own full range.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dff.colocalization import MaskOptions, colocalize
from dff.colocalization.evaluate import _found_masks
from dff.demo.creatures import PARTS, render
from dff.explain import Explainer
from dff.images import read_image
from dff.maps import binarize, upsample
from dff.metrics import part_agreement

SIZE = 128


def creatures(folder: Path, count: int) -> np.ndarray:
    """Write images of creatures; return their parts (n, p, SIZE, SIZE)."""
    parts = np.zeros((count, len(PARTS), SIZE, SIZE), bool)
    for i in range(count):
        scene = render(100_000 + i, size=SIZE)
        Image.fromarray(scene.image).save(folder / f"{i:05d}.png", compress_level=1)
        for name, mask in scene.parts.items():
            parts[i, PARTS.index(name)] = mask
    return parts


def ours(data: Path, out: Path, explainer: Explainer, concepts: int) -> np.ndarray:
    """Return our masks (n, k, SIZE, SIZE)."""
    run = colocalize(
        data,
        out,
        model=explainer,
        concepts=concepts,
        masks=MaskOptions(threshold="otsu", components="all"),
    )
    count = run.state["counts"]["images"]
    masks = np.zeros((count, concepts, SIZE, SIZE), bool)
    for image, found in _found_masks(run, dict.fromkeys(range(count))):  # type: ignore[arg-type]
        for concept, mask in found.items():
            masks[image, concept] = mask
    return masks


def theirs(data: Path, explainer: Explainer, concepts: int) -> np.ndarray:
    """Return the peer's masks (n, k, SIZE, SIZE)."""
    from pytorch_grad_cam import DeepFeatureFactorization

    pictures = [read_image(path) for path in sorted(data.glob("*.png"))]
    x = torch.stack([explainer.preprocessing.to_tensor(picture) for picture in pictures])
    model = explainer.model
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = DeepFeatureFactorization(model, model.get_submodule(explainer.layer))
        _, maps = peer(x, concepts)
    return np.stack(
        [
            np.stack([binarize(upsample(np.asarray(m, np.float32), (SIZE, SIZE))) for m in one])
            for one in maps
        ]
    )


def compare(count: int, concepts: int) -> dict:
    """Return CorLoc, part IoU and seconds of both."""
    explainer = Explainer("demo")
    report: dict = {"images": count, "concepts": concepts, "layer": explainer.layer}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        parts = creatures(data, count)
        for name, masks_of in (
            ("dff", lambda: ours(data, Path(place) / "run", explainer, concepts)),
            ("pytorch-grad-cam", lambda: theirs(data, explainer, concepts)),
        ):
            started = time.perf_counter()
            masks = masks_of()
            seconds = time.perf_counter() - started
            agreement = part_agreement(masks, parts, part_names=PARTS)
            report[name] = {
                "part IoU": agreement.mean_iou,
                "CorLoc": agreement.mean_corloc,
                "parts": dict(zip(PARTS, agreement.part_iou.round(3).tolist(), strict=True)),
                "seconds": seconds,
            }
    return report

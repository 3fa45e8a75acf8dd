"""Matrices for benchmarks/nmf.py: real activations, or synthetic ones like them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

CHANNELS = 1280
ROWS_PER_PHOTO = 64


def activations(shared: Path | None, rows: int, cache: Path | None = None) -> np.ndarray:
    """Return A (rows, 1280) in float32, real where `shared` has the model and the photos.

    MobileNetV2, layer ``features``, at 225 pixels: 8 x 8 cells a photo or crop. `cache` is a folder
    that keeps them.
    """
    path = cache / f"activations-{rows}.npy" if cache else None
    if path and path.exists():
        return np.load(path)
    weights = shared / "models/mobilenet_v2_imagenet.safetensors" if shared else None
    a = _real(shared, weights, rows) if weights and weights.exists() else _synthetic(rows)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, a)
    return a


def _synthetic(rows: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    w = generator.gamma(0.3, size=(rows, 40)).astype(np.float32)
    h = generator.gamma(0.1, size=(40, CHANNELS)).astype(np.float32)
    noise = generator.standard_normal((rows, CHANNELS), dtype=np.float32)
    return np.maximum(w @ h + noise - 1, 0)


def _real(shared: Path, weights: Path, rows: int) -> np.ndarray:
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=1000)
    model.load_state_dict(load_file(weights))
    model.eval()
    photos = sorted((shared / "data/imagenet-sample").glob("*.jpg"))
    crops = -(-rows // (ROWS_PER_PHOTO * len(photos)))
    parts = []
    with torch.inference_mode():
        for photo in photos:
            maps = model.features(torch.stack(list(_crops(photo, crops))))
            parts.append(maps.permute(0, 2, 3, 1).reshape(crops, -1, CHANNELS).numpy())
    return np.stack(parts, 1).reshape(-1, CHANNELS)[:rows]


def _crops(photo: Path, count: int) -> Iterator[torch.Tensor]:
    """Yield the centre square of a photo, then its corners, every second one flipped."""
    image = Image.open(photo).convert("RGB")
    width, height = image.size
    side, part = min(image.size), int(min(image.size) * 0.75)
    corners = [(0, 0), (width - part, 0), (0, height - part), (width - part, height - part)]
    boxes = [((width - side) // 2, (height - side) // 2, side)]
    boxes += [(x, y, part) for x, y in corners]
    for turn, (x, y, size) in enumerate(boxes[:count]):
        crop = image.crop((x, y, x + size, y + size)).resize((225, 225), Image.Resampling.BILINEAR)
        pixels = np.asarray(crop)[:, :: -1 if turn % 2 else 1].copy()
        yield torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1

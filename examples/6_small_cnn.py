"""A small CNN on small pictures, trained here in seconds: which pixels make it say "triangle"?

Saliency, integrated gradients, noise tunnel and DeepLift, as Captum's first tutorial has them.

pip install 'deep-feature-factorization[attributions]'
python examples/6_small_cnn.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional

from dff.attributions import attribute
from dff.errors import MissingExtraError
from dff.rendering.attributions import Look, attribution_panel

NAMES = ("circle", "square", "triangle", "cross")
SIZE = 32
METHODS = {
    "saliency": {},
    "integrated-gradients": {"n_steps": 100},
    "smoothgrad-sq": {"of": "integrated-gradients", "samples": 20, "stdev": 0.2},
    "deeplift": {},
}


def drawn(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a shape somewhere on a noisy ground, (32, 32, 3) uint8."""
    ground, colour = rng.integers(30, 226, (2, 3))
    while np.abs(ground - colour).sum() < 150:
        ground, colour = rng.integers(30, 226, (2, 3))
    picture = Image.new("RGB", (SIZE, SIZE), tuple(map(int, ground)))
    draw, fill = ImageDraw.Draw(picture), tuple(map(int, colour))
    r = int(rng.integers(6, 10))
    x, y = (int(v) for v in rng.integers(r + 1, SIZE - r - 1, 2))
    if label == 0:
        draw.ellipse((x - r, y - r, x + r, y + r), fill)
    elif label == 1:
        draw.rectangle((x - r, y - r, x + r, y + r), fill)
    elif label == 2:
        draw.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill)
    else:
        draw.rectangle((x - r, y - 2, x + r, y + 2), fill)
        draw.rectangle((x - 2, y - r, x + 2, y + r), fill)
    noisy = np.asarray(picture) + rng.normal(0, 8, (SIZE, SIZE, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def pictures(count: int, seed: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Return pictures, the same normalised to [-1, 1] as the model takes them, and their labels."""
    rng = np.random.default_rng(seed)
    labels = torch.arange(count) % len(NAMES)
    drawings = np.stack([drawn(int(label), rng) for label in labels])
    return drawings, torch.from_numpy(drawings).permute(0, 3, 1, 2) / 127.5 - 1, labels


def trained() -> nn.Module:
    """Train the net on 2,000 pictures."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 64), nn.ReLU(), nn.Linear(64, len(NAMES)),
    )  # fmt: skip
    _, inputs, labels = pictures(2000, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(6):
        for batch in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    """Train, say how often the net is right, and write one picture a shape."""
    model = trained()
    drawings, inputs, labels = pictures(400, seed=1)
    right = (model(inputs).argmax(1) == labels).float().mean()
    print(f"right on {right:.0%} of {len(labels)} new pictures")
    folder = Path("dff-out/small_cnn")
    folder.mkdir(parents=True, exist_ok=True)
    x, targets = inputs[: len(NAMES)], labels[: len(NAMES)]
    found = {
        name: attribute(model, x, targets.tolist(), name, settings=settings)
        for name, settings in METHODS.items()
    }
    for name, each in found.items():
        if each.delta is not None:
            print(f"{name}: the sums miss at most {each.delta.abs().max():.2g} of the logits")
    for i, shape in enumerate(NAMES):
        values = [each.values[i] for each in found.values()]
        signed = [Look("heat_map", "all" if bool((v < 0).any()) else "positive") for v in values]
        panel = attribution_panel(
            [values[0], *values], drawings[i], [Look("original"), *signed],
            titles=[f"a {shape}", *found],
        )  # fmt: skip
        panel.save(folder / f"{shape}.png")
        print("wrote", folder / f"{shape}.png")


if __name__ == "__main__":
    try:
        main()
    except MissingExtraError as error:
        print("skipped:", error)

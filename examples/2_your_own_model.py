"""Your own module, nothing configured; its concepts are kept and used again.

python examples/2_your_own_model.py
"""

import numpy as np
import torch
from torch import nn

import dff

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, 4),
)

explainer = dff.Explainer(
    model,
    preprocessing=dff.Preprocessing(size=64, mean=0.5, std=0.5),
    class_names=["circle", "square", "star", "none"],
)
print("the layer found:", explainer.layer)

rng = np.random.default_rng(0)
photos = [rng.integers(0, 255, (80, 120, 3), dtype=np.uint8) for _ in range(4)]
shared = explainer(photos, concepts=3)
path = shared.bank.renamed({0: "speckles"}).save("dff-out-bank.safetensors")

later = explainer(photos[0], bank=dff.ConceptBank.load(path))
print("the same concepts in a later image:", later.bank.names)
path.unlink()

"""The embedded model: a small residual network that tells the demo's species apart.

It reads like a ResNet: ``conv1``, ``bn1``, ``relu``,
``maxpool``, ``layer1`` to ``layer4``, ``avgpool``, ``fc``. Its stride is 4 (a ResNet's is 32),
so ``layer4`` is a grid of 32 x 32 cells on its input of 128 x 128 pixels: fine enough for parts.

Its weights (float16, beside this file) come from ``examples/train_demo_model.py``.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import nn

from dff.demo.species import SPECIES
from dff.errors import ModelError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = [
    "CLASS_NAMES",
    "INPUT_SIZE",
    "MEAN",
    "STD",
    "CreatureNet",
    "load",
    "normalised",
    "store",
    "trained",
]

Network = TypeVar("Network", bound=nn.Module)

CLASS_NAMES: tuple[str, ...] = tuple(SPECIES)
INPUT_SIZE = 128
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
_WEIGHTS = "weights.safetensors"


class CreatureNet(nn.Module):
    """A residual network of 9 convolutions: (n, 3, h, w) normalised RGB to (n, classes) logits.

    Args:
        classes: the number of logits.
        widths: the channels of ``layer1`` to ``layer4``.
    """

    def __init__(
        self,
        classes: int = len(CLASS_NAMES),
        widths: tuple[int, int, int, int] = (32, 48, 64, 128),
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(widths[0], widths[0], stride=1)
        self.layer2 = _stage(widths[0], widths[1], stride=1)
        self.layer3 = _stage(widths[1], widths[2], stride=1)
        self.layer4 = _stage(widths[2], widths[3], stride=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], classes)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Return the activations (n, channels, h / 4, w / 4) of ``layer4``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        out: torch.Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return out

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) of normalised images (n, 3, h, w)."""
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(self.maps(images)), 1))
        return logits


def load() -> CreatureNet:
    """Return the trained model on the CPU, float32, in evaluation mode.

    Raises:
        ModelError: the weights are missing from the installation.
    """
    return trained(
        CreatureNet(), resources.files("dff.demo") / _WEIGHTS, "examples/train_demo_model.py"
    )


def trained(network: Network, path: Traversable, maker: str) -> Network:
    """Return a network with the weights of a file (float16), in evaluation mode.

    Raises:
        ModelError: there is no file; it names the script that makes it.
    """
    try:
        tensors = load_tensors(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"expected the demo model's weights at {path}, and found none; install the package "
            f"again, or make them with {maker}"
        ) from error
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **{k: v.float() for k, v in tensors.items()}})
    return network.eval()


def store(network: nn.Module, path: Path) -> None:
    """Write a network's weights as :func:`trained` reads them; the folder is made."""
    tensors = {
        name: value.detach().half().contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Return the input of the demo's models from images (n, 3, h, w) uint8."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


class BasicBlock(nn.Module):
    """The residual block of ResNet-18: two 3 x 3 convolutions beside a shortcut.

    Its modules have the names that torchvision gives them; torchvision itself takes seconds to
    import.
    """

    def __init__(
        self, channels: int, width: int, stride: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return maps (n, width, h / stride, w / stride) of maps (n, channels, h, w)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += shortcut
        result: torch.Tensor = self.relu(out)
        return result


def _stage(channels: int, width: int, *, stride: int) -> nn.Sequential:
    """Return one residual block that goes from `channels` to `width`."""
    shortcut = None
    if stride != 1 or channels != width:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    return nn.Sequential(BasicBlock(channels, width, stride, shortcut))

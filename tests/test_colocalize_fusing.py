"""BatchNorms folded into convolutions: the same output from a copy, the model untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from dff.colocalization.stages.fusing import fused
from dff.colocalization.stages.network import Network
from tests.colocalized import toy
from tests.toys import ConvNet, TokenNet, images, seeded, untouched


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_all_norms_of_a_network_are_folded(name):
    model = seeded(models.get_model, name, num_classes=7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    x = images(2, 3, 64, 64)
    layer = "layer4" if name == "resnet18" else "features"
    with untouched(model):
        quick = fused(model, layer, x[:1])
        assert norms(quick) == 0
        with torch.no_grad():
            torch.testing.assert_close(quick(x), model(x), rtol=1e-3, atol=1e-4)


def test_a_convolution_that_is_the_layer_or_is_used_twice_is_left():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return (self.norm(y) + y).mean((2, 3))

    model = seeded(Twice)
    assert fused(model, "norm", images(1, 3, 16, 16)) is model
    net = seeded(ConvNet)
    assert norms(fused(net, "layer4.0", images(1, 3, 16, 16))) == 1
    assert norms(fused(net, "layer4", images(1, 3, 16, 16))) == 0


def test_models_without_norms_run_as_they_are():
    model = seeded(TokenNet)
    assert fused(model, "blocks.1", images(1, 3, 32, 32)) is model


def test_the_network_normalises_as_the_preprocessing_does():
    explainer = toy()
    network = Network(explainer)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    x = network._input(pixels)
    assert x.is_contiguous()  # as the kernels of this model are
    levels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(x, (levels - 0.5) / 0.25, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        passed = network(pixels)
        torch.testing.assert_close(passed.logits, explainer.model(x), rtol=1e-4, atol=1e-4)

"""Raw Grad-CAM by Captum's call, beside Captum."""

import numpy as np
import pytest
import torch
from torch import nn

import gradcam
from dff.errors import LayerError, ModelError, UsageError
from gradcam import LayerGradCam
from tests.toys import ConvNet, PixelNet, images, seeded, untouched


class TwoInputs(nn.Module):
    """Adds two images, scaled, before its layers; the inner layer gives two tensors."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.split = Split()
        self.join = Join()
        self.fc = nn.Linear(6, 4)

    def forward(self, x, y, scale=1.0, shift=None):
        maps = self.relu(self.conv(x + scale * y))
        joined = self.join(*self.split(maps)).mean((2, 3))
        return self.fc(joined if shift is None else joined + shift).unflatten(1, (2, 2))


class Split(nn.Module):
    def forward(self, maps):
        return maps * 2, maps.tanh()


class Join(nn.Module):
    def forward(self, a, b):
        return a * b


OPTIONS = [
    {},
    {"relu_attributions": True},
    {"attr_dim_summation": False},
    {"attribute_to_layer_input": True},
    {"attribute_to_layer_input": True, "attr_dim_summation": False, "relu_attributions": True},
]


def same(ours, theirs):
    assert isinstance(theirs, tuple) == isinstance(ours, tuple)
    pairs = [(ours, theirs)] if isinstance(ours, torch.Tensor) else zip(ours, theirs, strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("layer", ["stem.0", "stem.2", "layer4", "layer4.2", "avgpool", "fc"])
def test_equal_to_captum(layer, options):
    captum = pytest.importorskip("captum.attr", reason="needs captum (extra attributions)")
    model, x = seeded(ConvNet), images(3, 3, 16, 20)
    module = model.get_submodule(layer)
    target = torch.tensor([1, 4, 0])
    theirs = captum.LayerGradCam(model, module).attribute(x, target, **options)
    with untouched(model):
        ours = LayerGradCam(model, module).attribute(x, target, **options)
    same(ours, theirs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("layer", ["conv", "relu", "split", "join"])
@pytest.mark.parametrize("target", [(1, 0), [(1, 0), (0, 1)]], ids=str)
def test_equal_to_captum_on_tuples(layer, options, target):
    captum = pytest.importorskip("captum.attr", reason="needs captum (extra attributions)")
    model, x, y = seeded(TwoInputs), images(2, 3, 16, 16), images(2, 3, 16, 16, seed=1)
    shift = images(2, 6, seed=2)
    module = getattr(model, layer)
    for extra in (0.5, (0.5, shift)):
        call = {"target": target, "additional_forward_args": extra, **options}
        theirs = captum.LayerGradCam(model, module).attribute((x, y), **call)
        same(LayerGradCam(model, module).attribute((x, y), **call), theirs)


def test_a_function_is_a_model_too():
    model, x = seeded(ConvNet).train(), images(2, 3, 16, 16)
    whole = LayerGradCam(model, model.layer4).attribute(x, 3)
    with untouched(model), torch.no_grad():
        model.eval()
        by_function = LayerGradCam(lambda x: model(x)[:, 3], model.layer4).attribute(x)
        model.train()
    torch.testing.assert_close(by_function, whole)
    big = LayerGradCam.interpolate(whole, (16, 16), "bilinear")
    assert big.shape == (2, 1, 16, 16)


def test_equal_to_the_raw_maps_of_the_family():
    model, x = seeded(ConvNet), images(2, 3, 16, 16)
    raw = gradcam.GradCAM(model, ["layer4"], signed=True, normalise=False)(x, [1, 2])
    low = LayerGradCam(model, model.layer4).attribute(x, [1, 2])
    np.testing.assert_allclose(
        raw, LayerGradCam.interpolate(low, (16, 16), "bilinear")[:, 0], atol=1e-6
    )


def test_wrong_arguments():
    model, x = seeded(ConvNet), images(2, 3, 16, 16)
    cam = LayerGradCam(model, model.layer4)
    with untouched(model):
        with pytest.raises(UsageError, match=r"output is \(2, 5\): a target says which"):
            cam.attribute(x)
        with pytest.raises(UsageError, match="outside the output"):
            cam.attribute(x, 5)
        with pytest.raises(UsageError, match="each of 2 images, got 3"):
            cam.attribute(x, [0, 1, 2])
        with pytest.raises(LayerError, match="not part of"):
            LayerGradCam(model, seeded(PixelNet).body).attribute(x, 0)
        with pytest.raises(ModelError, match="no gradient reaches it"):
            LayerGradCam(lambda x: model(x).detach(), model.layer4).attribute(x, 0)

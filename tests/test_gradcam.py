import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from dff.errors import LayerError, ModelError, UsageError
from gradcam import GradCAM, grad_cam
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched


def test_the_arithmetic_on_numbers_one_can_compute_by_hand():
    activations = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    gradients = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])
    # channel weights: 1 and 0
    assert grad_cam(activations, gradients).tolist() == [[[1.0, 2.0]]]
    assert grad_cam(-activations, gradients).tolist() == [[[0.0, 0.0]]]


def test_a_linear_head_gives_its_weights():
    model, x = seeded(PixelNet), images(2, 3, 6, 9)
    maps = GradCAM(model, [model.body])(x, [1, 3])
    for i, target in enumerate((1, 3)):
        raw = torch.einsum("c,chw->hw", model.fc.weight[target].detach(), x[i]).relu()
        expected = (raw - raw.min()) / (raw.max() - raw.min())
        np.testing.assert_allclose(maps[i], expected, atol=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_the_model_is_left_as_it_was(train):
    model = seeded(ConvNet).train(train)
    with untouched(model):
        maps = GradCAM(model, ["layer4", model.stem])(images(2, 3, 20, 28))
    assert maps.shape == (2, 20, 28)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() <= maps.max() <= 1


def test_targets():
    model, x = seeded(ConvNet), images(2, 3, 16, 16)
    cam = GradCAM(model, "layer4", class_names=["ant", "bee, honeybee", "cat", "dog", "elk"])
    by_index = cam(x, [1, 2])
    np.testing.assert_array_equal(cam(x, ["Honeybee", "cat"]), by_index)
    np.testing.assert_array_equal(cam(x, [lambda out: out[1], lambda out: out[2]]), by_index)
    np.testing.assert_array_equal(cam(x, 2)[1], by_index[1])
    likeliest = model(x).argmax(1).tolist()
    np.testing.assert_array_equal(cam(x), cam(x, likeliest))


def test_use_as_a_context_manager():
    with GradCAM(model=seeded(ConvNet), target_layers=["layer4"]) as cam:
        assert cam(input_tensor=images(1, 3, 16, 16), targets=None).shape == (1, 16, 16)


def test_wrong_arguments():
    model, x = seeded(ConvNet), images(2, 3, 16, 16)
    with pytest.raises(LayerError, match="did you mean 'layer4'"):
        GradCAM(model, ["layer44"])
    with pytest.raises(UsageError, match="is empty"):
        GradCAM(model, [])
    with pytest.raises(UsageError, match="each of 2 images, got 1"):
        GradCAM(model, "layer4")(x, [0])
    with pytest.raises(UsageError, match="classes 0 to 4"):
        GradCAM(model, "layer4")(x, 5)
    with pytest.raises(UsageError, match="no class names"):
        GradCAM(model, "layer4")(x, "cat")
    with pytest.raises(ModelError, match="no gradient reaches it"):
        GradCAM(model, "layer4")(x, lambda out: torch.zeros(()))


def test_a_grid_that_nobody_reads_gives_an_empty_map():
    maps = GradCAM(seeded(TokenNet), "blocks.2")(images(1, 3, 32, 32), 0)
    assert maps.max() == 0


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet18", ["layer4"]), ("resnet18", ["layer3", "layer4"]), ("mobilenet_v2", ["features"])],
)
def test_equal_to_pytorch_grad_cam(name, layers):
    peer = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam (the test extra)")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
    x = torch.randn(2, 3, 160, 128, generator=torch.Generator().manual_seed(1))
    ours = GradCAM(model, layers)(x, [2, 5])
    modules = [model.get_submodule(layer) for layer in layers]
    with peer.GradCAM(model, modules) as cam:
        theirs = cam(x, [targets.ClassifierOutputTarget(i) for i in (2, 5)])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)

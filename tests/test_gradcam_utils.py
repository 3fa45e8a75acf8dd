"""Targets, pictures and reshape transforms, beside pytorch-grad-cam's."""

import cv2
import numpy as np
import pytest
import torch

from dff.errors import UsageError
from gradcam import GuidedBackpropReLUModel
from gradcam.utils import image, model_targets, reshape_transforms
from tests.toys import ConvNet, images, seeded, untouched

RNG = np.random.default_rng(0)
PHOTO = RNG.random((6, 7, 3)).astype(np.float32)
MASK = RNG.random((6, 7)).astype(np.float32)


def peers(name):
    return pytest.importorskip(
        f"pytorch_grad_cam.utils.{name}", reason="needs grad-cam (the test extra)"
    )


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("ClassifierOutputTarget", (2,), (5,)),
        ("ClassifierOutputTarget", (2,), (3, 5)),
        ("ClassifierOutputSoftmaxTarget", (2,), (5,)),
        ("ClassifierOutputReST", (2,), (5,)),
        ("BinaryClassifierOutputTarget", (0,), (1,)),
        ("BinaryClassifierOutputTarget", (1,), (1,)),
        ("SoftmaxOutputTarget", (), (5,)),
        ("RawScoresOutputTarget", (), (5,)),
        ("SemanticSegmentationTarget", (1, MASK), (4, 6, 7)),
        ("FinerWeightedTarget", (2, [0, 1, 4], 0.7), (5,)),
    ],
)
def test_targets_equal_to_the_peers(name, arguments, shape):
    output = images(*shape) * 4 - 2
    theirs = getattr(peers("model_targets"), name)(*arguments)(output)
    torch.testing.assert_close(getattr(model_targets, name)(*arguments)(output), theirs)


@pytest.mark.parametrize(
    ("labels", "boxes"),
    [
        ([1], [[0, 0, 10, 10]]),
        ([1, 2], [[0, 0, 10, 10], [5, 5, 20, 20]]),
        ([2], [[0, 0, 10, 10]]),
        ([1], [[0, 0, 10, 6]]),
        ([1], [[90, 90, 99, 99]]),
    ],
)
def test_box_targets_equal_to_the_peers(labels, boxes):
    found = {
        "boxes": torch.tensor([[0, 0, 10, 10.0], [5, 5, 20, 20], [0, 0, 9, 10]]),
        "labels": torch.tensor([1, 2, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
    }
    nothing = {key: value[:0] for key, value in found.items()}
    ours = model_targets.FasterRCNNBoxScoreTarget(labels, boxes)
    theirs = peers("model_targets").FasterRCNNBoxScoreTarget(labels, np.array(boxes))
    for output in (found, nothing):
        torch.testing.assert_close(ours(output), theirs(output))


@pytest.mark.parametrize("use_rgb", [False, True])
@pytest.mark.parametrize("colormap", [cv2.COLORMAP_JET, cv2.COLORMAP_HOT])
@pytest.mark.parametrize("image_weight", [0.0, 0.3, 0.5])
def test_pictures_equal_to_the_peers(use_rgb, colormap, image_weight):
    options = (use_rgb, colormap, image_weight)
    theirs = peers("image").show_cam_on_image(PHOTO, MASK, *options)
    ours = image.show_cam_on_image(PHOTO, MASK, *options)
    assert ours.dtype == np.uint8
    np.testing.assert_allclose(ours, theirs, atol=1)


def test_inputs_equal_to_the_peers():
    peer = peers("image")
    for mean, std in (([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])):
        for photo in (PHOTO, (PHOTO * 255).astype(np.uint8)):
            ours = image.preprocess_image(photo, mean, std)
            torch.testing.assert_close(ours, peer.preprocess_image(photo, mean, std))
    values = RNG.normal(7, 3, (6, 7, 3))
    np.testing.assert_array_equal(image.deprocess_image(values), peer.deprocess_image(values))


def test_reshape_transforms_equal_to_the_peers():
    peer = peers("reshape_transforms")
    levels = {"0": images(2, 3, 8, 8) - 0.5, "1": images(2, 3, 4, 4), "pool": images(2, 3, 2, 2)}
    for name, output in (
        ("fasterrcnn_reshape_transform", levels),
        ("swinT_reshape_transform", images(2, 49, 5)),
        ("vit_reshape_transform", images(2, 197, 5)),
    ):
        theirs = getattr(peer, name)(output)
        torch.testing.assert_close(getattr(reshape_transforms, name)(output), theirs)


def test_pictures_of_nothing_and_of_wrong_arguments():
    black = np.zeros_like(PHOTO)
    drawn = image.show_cam_on_image(black, np.zeros((6, 7)), image_weight=1)
    assert drawn.max() == 0
    for photo, mask, weight, message in (
        (PHOTO * 255, MASK, 0.5, "divide 8-bit pixels"),
        (PHOTO, MASK[1:], 0.5, r"mask is \(5, 7\)"),
        (PHOTO, MASK * np.nan, 0.5, r"lies in \[0, 1\]"),
        (PHOTO, MASK * 2, 0.5, r"lies in \[0, 1\]"),
        (PHOTO, MASK, 2, "image_weight"),
    ):
        with pytest.raises(UsageError, match=message):
            image.show_cam_on_image(photo, mask, image_weight=weight)


@pytest.mark.parametrize("target", [3, None])
def test_guided_gradients_equal_to_the_peers(target):
    peer = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam (the test extra)")
    model, x = seeded(ConvNet), images(1, 3, 20, 24)
    model.fc.weight.data *= 100
    with untouched(model.train()), torch.no_grad():
        ours = GuidedBackpropReLUModel(model)(x, target)
    model.eval()
    theirs = peer.GuidedBackpropReLUModel(model=model, device="cpu")(x, target_category=target)
    assert ours.shape == (20, 24, 3)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours).max() > 1e-3
    with pytest.raises(UsageError, match="takes one image"):
        GuidedBackpropReLUModel(model)(images(2, 3, 8, 8))


def test_projections_by_the_peers_names():
    from gradcam.utils import svd_on_activations as ours

    peer = pytest.importorskip(
        "pytorch_grad_cam.utils.svd_on_activations", reason="needs grad-cam (the test extra)"
    )
    maps = RNG.normal(size=(2, 5, 4, 6)).astype(np.float32)
    maps[0, 0, 0, 0] = np.nan
    for name in ours.__all__:
        mine, kept = getattr(ours, name)(maps), maps.copy()
        np.testing.assert_allclose(mine, getattr(peer, name)(kept), atol=1e-5)
    assert np.isnan(maps[0, 0, 0, 0])

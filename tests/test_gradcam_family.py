"""The methods beside pytorch-grad-cam's own classes, and what only one pass at the layer gives."""

import inspect

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import gradcam
from dff.errors import DFFError, LayerError, ModelError, UsageError
from gradcam.utils import model_targets
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched

try:
    import pytorch_grad_cam as peer
except ImportError:
    peer = None

METHODS = [
    name
    for name, value in vars(gradcam).items()
    if inspect.isclass(value) and issubclass(value, gradcam.BaseCAM)
    if name not in ("BaseCAM", "LeGrad")
]
THEIRS = [
    name
    for name, value in vars(peer).items()
    if inspect.isclass(value) and hasattr(value, "forward") and "target_layers" in
    inspect.signature(value).parameters
] if peer else []  # fmt: skip
NOT_OFFERED = ("RefineCAM", "SESS", "SobelCAM", "ActivationsAndGradients")
NEEDS_PEER = pytest.mark.skipif(peer is None, reason="needs grad-cam (the test extra)")


def small_net(seed=1):
    """A convolutional network whose head is not linear in the layer's maps."""

    def built():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, 16, 3), nn.Tanh(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 6),
        )  # fmt: skip

    model = seeded(built, seed=seed)
    model[-1].weight.data *= 30  # scores as large as a trained model's
    return model


def both(name, model, layers, x, classes, *, theirs=None, **call):
    """Maps of one method, ours and the peer's."""
    modules = [model.get_submodule(layer) for layer in layers]
    np.random.seed(0)  # noqa: NPY002 - the peer's RandomCAM draws from it
    with getattr(peer, name)(model, modules, **(theirs or {})) as cam:
        expected = cam(x, [model_targets.ClassifierOutputTarget(c) for c in classes], **call)
    model.zero_grad()
    with getattr(gradcam, name)(model=model, target_layers=modules) as cam:
        targets = [model_targets.ClassifierOutputTarget(c) for c in classes]
        return cam(input_tensor=x, targets=targets, **call), expected


@NEEDS_PEER
@pytest.mark.parametrize("layers", [["4"], ["2", "4"]], ids="+".join)
@pytest.mark.parametrize("call", [{}, {"eigen_smooth": True}, {"aug_smooth": True}], ids=str)
@pytest.mark.parametrize("name", THEIRS)
def test_equal_to_pytorch_grad_cam(name, layers, call):
    if name in NOT_OFFERED:
        pytest.skip(f"{name} is not offered")
    if name == "RandomCAM" and call:
        pytest.skip("the peer's weights differ from call to call")
    if name == "ShapleyCAM" and len(layers) > 1:
        pytest.skip("the peer's ShapleyCAM fails on several layers")
    if name == "FinerCAM" and "aug_smooth" in call:
        pytest.skip("the peer's FinerCAM does not take aug_smooth")
    ours, theirs = both(name, small_net(), layers, images(2, 3, 32, 40) - 0.5, [1, 4], **call)
    assert theirs.max() > 0
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@NEEDS_PEER
@pytest.mark.parametrize("name", sorted({*METHODS} - {"AblationCAM"}))
def test_equal_on_a_transformer_whose_layout_is_found(name):
    model, x = seeded(TokenNet), images(2, 3, 32, 32)
    model.head.weight.data *= 1000

    def transform(tokens):
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 4, 4)

    theirs = {"reshape_transform": transform}
    if name in ("FullGrad", "ShapleyCAM"):
        pytest.skip("the peer fails on it")
    if name == "HiResCAM":
        pytest.skip("gradient times activation adds up to rounding before a LayerNorm")
    ours, expected = both(name, model, ["blocks.1"], x, [1, 4], theirs=theirs)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    with_transform = getattr(gradcam, name)(model, "blocks.1", transform)
    targets = [model_targets.ClassifierOutputTarget(c) for c in (1, 4)]
    np.testing.assert_allclose(with_transform(x, targets), ours, atol=1e-5)


@NEEDS_PEER
def test_finer_cam_chooses_the_classes_nearest_to_the_target():
    model, x = small_net(), images(2, 3, 32, 40) - 0.5
    options = {"alpha": 0.6, "comparison_categories": [1, 3], "target_idx": 2}
    expected = peer.FinerCAM(model, [model[4]])(input_tensor=x, targets=None, **options)
    np.testing.assert_allclose(gradcam.FinerCAM(model, ["4"])(x, **options), expected, atol=1e-4)
    by_index = gradcam.FinerCAM(model, ["4"])(x, 2, alpha=0.6, comparison_categories=[1, 3])
    np.testing.assert_array_equal(by_index, gradcam.FinerCAM(model, ["4"])(x, **options))
    with pytest.raises(UsageError, match="from 1 to 5: the model has 6 classes"):
        gradcam.FinerCAM(model, ["4"])(x, comparison_categories=[6])
    with pytest.raises(UsageError, match="EigenCAM does not ask which class"):
        gradcam.FinerCAM(model, ["4"], base_method=gradcam.EigenCAM)


@NEEDS_PEER
@pytest.mark.parametrize(
    "name", ["GradCAM", "HiResCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "EigenGradCAM"]
)
def test_equal_on_volumes(name):
    model = seeded(lambda: nn.Sequential(
        nn.Conv3d(2, 8, 3, 2, 1), nn.ReLU(), nn.Conv3d(8, 12, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(12, 6)))  # fmt: skip
    ours, theirs = both(name, model, ["3"], images(2, 2, 12, 16, 20), [1, 4])
    assert ours.shape == (2, 12, 16, 20)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_any_model_in_any_mode_is_given_back(name, mode):
    model, x = seeded(ConvNet), images(2, 3, 24, 32)
    cam = getattr(gradcam, name)(model, ["layer4"])
    expected = cam(x, [0, 3])
    model.train().requires_grad_(False)
    with untouched(model), mode():
        frozen = getattr(gradcam, name)(nn.DataParallel(model), ["module.layer4"])(x, [0, 3])
    np.testing.assert_allclose(frozen, expected, atol=1e-6)
    assert expected.shape == (2, 24, 32)
    assert expected.dtype == np.float32
    assert cam.outputs.shape == (2, 5)
    assert cam.activations_and_grads.activations
    assert cam.activations_and_grads(x).shape == (2, 5)


@pytest.mark.parametrize("name", METHODS)
def test_a_grid_of_one_cell_gives_a_flat_map(name):
    model = seeded(ConvNet)
    strided = nn.Sequential(model, nn.Identity())
    model.layer4.append(nn.AdaptiveAvgPool2d(1))
    maps = getattr(gradcam, name)(strided, ["0.layer4"])(images(2, 3, 32, 32), 1)
    assert maps.shape == (2, 32, 32)
    assert name == "FullGrad" or maps.max() == 0


def test_signed_and_raw_maps():
    model, x = seeded(PixelNet), images(2, 3, 6, 9)
    weights = model.fc.weight.detach()[[1, 3]]
    raw = torch.einsum("nc,nchw->nhw", weights, x) / (6 * 9)
    ours = gradcam.GradCAM(model, "body", signed=True, normalise=False)(x, [1, 3])
    np.testing.assert_allclose(ours, raw, atol=1e-6)
    clipped = gradcam.GradCAM(model, "body", normalise=False)(x, [1, 3])
    np.testing.assert_allclose(clipped, raw.relu(), atol=1e-6)
    signed = gradcam.GradCAM(model, "body", signed=True)(x, [1, 3])
    np.testing.assert_allclose(signed, raw / raw.abs().amax((1, 2), keepdim=True), atol=1e-5)


def test_one_logit_an_image():
    class Binary(ConvNet):
        def forward(self, x):
            return super().forward(x)[:, 0]

    model, x = seeded(Binary), images(3, 3, 16, 16)
    cam = gradcam.GradCAM(model, ["layer4"], signed=True)
    target = model_targets.BinaryClassifierOutputTarget
    np.testing.assert_array_equal(cam(x), cam(x, [target(1)] * 3))
    np.testing.assert_array_equal(cam(x, 0), cam(x))
    np.testing.assert_allclose(cam(x, [target(0)] * 3), -cam(x), atol=1e-6)
    np.testing.assert_allclose(cam(x[:1]), cam(x)[:1], atol=1e-6)
    with pytest.raises(UsageError, match="class 1 does not exist"):
        cam(x, 1)


def test_ablation_is_the_share_of_the_score_that_a_channel_has():
    model, x = small_net(), images(1, 3, 24, 24)
    A = model[:5](x).detach()
    whole = model[5:](A)[0, 2]
    weights = [((whole - model[5:](_without(A, c))[0, 2]) / whole).item() for c in range(16)]
    expected = (torch.tensor(weights)[:, None, None] * A[0]).sum(0)
    rest = nn.Sequential(nn.Identity(), model[5:])
    cam = gradcam.AblationCAM(rest, ["0"], signed=True, normalise=False, batch_size=5)
    np.testing.assert_allclose(cam(A, 2)[0], expected, atol=1e-5)
    some = gradcam.AblationCAM(model, ["4"], ratio_channels_to_ablate=0.5)
    assert some(x, 2).max() == 1
    with pytest.raises(UsageError, match="lies in"):
        gradcam.AblationCAM(model, ["4"], ratio_channels_to_ablate=0)


def _without(A, channel):
    A = A.clone()
    A[:, channel] = 0
    return A


def test_wrong_arguments_and_models_say_so():
    model, x = seeded(ConvNet), images(2, 3, 16, 16)
    with untouched(model):
        with pytest.raises(LayerError, match="did you mean 'layer4'"):
            gradcam.LayerCAM(model, ["layer5"])
        with pytest.raises(UsageError, match="each of 2 images, got 3"):
            gradcam.ScoreCAM(model, ["layer4"])(x, [0, 1, 2])
        with pytest.raises(UsageError, match="returned \\(5,\\)"):
            gradcam.GradCAM(model, ["layer4"])(x, model_targets.RawScoresOutputTarget())
        with pytest.raises(ModelError, match="activations of layer 'layer4' hold NaN"):
            gradcam.EigenCAM(model, ["layer4"])(x * float("nan"))
        with pytest.raises(UsageError, match="did you mean 'cosine'"):
            gradcam.KPCA_CAM(model, ["layer4"], kernel="cosin")
    with pytest.raises(ModelError, match="GradCAM, HiResCAM and LayerCAM need none"):
        gradcam.FullGrad(seeded(PixelNet), [])


def test_a_target_that_fails_leaves_the_model_as_it_was():
    model, x = seeded(ConvNet).train(), images(2, 3, 16, 16)

    def broken(_output):
        raise RuntimeError("broken")

    for name in METHODS:
        cam = getattr(gradcam, name)(model, ["layer4"])
        with untouched(model):
            if not cam.uses_targets:
                continue
            with pytest.raises((RuntimeError, DFFError), match="broken"):
                cam(x, broken)


def small_faster_rcnn():
    """fasterrcnn_mobilenet_v3_large_320_fpn, narrow: Score-CAM has a pass for each channel."""
    from torchvision.models import detection

    body = torchvision.models.mobilenet_v3_small().features
    backbone = detection.backbone_utils.BackboneWithFPN(
        body, {"8": "0", "12": "1"}, [48, 576], out_channels=16
    )
    anchors = detection.anchor_utils.AnchorGenerator(((32, 64),) * 3, ((0.5, 1.0, 2.0),) * 3)
    return detection.FasterRCNN(
        backbone, num_classes=4, min_size=64, max_size=96, box_score_thresh=0.0,
        rpn_anchor_generator=anchors,
    )  # fmt: skip


def test_detectors():
    model = seeded(small_faster_rcnn)
    x = images(1, 3, 64, 96)
    with torch.no_grad():
        found = model(x)[0]
    target = model_targets.FasterRCNNBoxScoreTarget(found["labels"][:3], found["boxes"][:3])
    from gradcam.utils.reshape_transforms import fasterrcnn_reshape_transform as transform

    for method in (gradcam.GradCAM, gradcam.EigenCAM, gradcam.AblationCAM, gradcam.ScoreCAM):
        options = {}
        if method is gradcam.AblationCAM:
            options = {"ratio_channels_to_ablate": 0.01}
        with untouched(model):
            maps = method(model, [model.backbone], transform, **options)(x, [target])
        assert maps.shape == (1, 64, 96)
        assert maps.max() == pytest.approx(1, abs=1e-5), method


def test_several_methods_and_classes_of_one_pass():
    model, x = small_net(), images(1, 3, 32, 40) - 0.5
    names = [name for name in gradcam.METHODS if name != "legrad"]
    runs = []
    handle = model[0].register_forward_hook(lambda *_: runs.append(True))
    found = gradcam.several(model, ["2", "4"], x, names, [1, 4])
    runs.clear()
    light = [name for name in names if gradcam.METHODS[name].shares_pass]
    light = [name for name in light if name not in ("scorecam", "ablationcam")]
    gradcam.several(model, ["2", "4"], x, light, [1, 4])
    handle.remove()
    assert len(runs) == 1
    for name in names:
        cam = gradcam.METHODS[name](model, ["2", "4"])
        expected = np.concatenate([cam(x, [1]), cam(x, [4])])
        np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)
    signed = gradcam.several(model, "4", x, [gradcam.LayerCAM], signed=True)
    assert signed["LayerCAM"].shape == (1, 32, 40)
    assert set(gradcam.several(seeded(TokenNet), "blocks.1", images(1, 3, 32, 32), ["legrad"]))


def test_methods_by_name():
    assert gradcam.method("Grad-CAM++") is gradcam.GradCAMPlusPlus
    assert gradcam.method("KPCA_CAM") is gradcam.KPCA_CAM
    with pytest.raises(UsageError, match="did you mean 'layercam'"):
        gradcam.method("layrcam")
    with pytest.raises(UsageError, match="takes one photo"):
        gradcam.several(seeded(ConvNet), "layer4", images(2, 3, 16, 16))


def test_score_cam_of_the_channels_that_vary_most():
    model, x = small_net(), images(2, 3, 24, 24) - 0.5
    model[3].weight.data[:3] = 0  # these channels are of one value throughout
    whole = gradcam.ScoreCAM(model, ["4"])(x, [1, 4])
    varied = gradcam.ScoreCAM(model, ["4"], ratio_channels=0.75)(x, [1, 4])
    assert np.corrcoef(whole.ravel(), varied.ravel())[0, 1] > 0.95
    runs = []
    handle = model.register_forward_hook(lambda module, inputs, output: runs.append(len(output)))
    gradcam.ScoreCAM(model, ["4"])(x[:1], 1)
    handle.remove()
    assert sum(runs) <= 1 + 13 + 1
    assert max(runs) <= max(4, torch.get_num_threads()), "a processor's caches hold no more"
    cam, counts = gradcam.ScoreCAM(model, ["4"]), []
    cam.batch_size = 16
    handle = model.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    cam(x[:1], 1)
    handle.remove()
    assert max(counts) > max(runs)
    with pytest.raises(UsageError, match="ratio_channels lies in"):
        gradcam.ScoreCAM(model, ["4"], ratio_channels=2)


def test_a_method_of_ones_own_needs_a_rule():
    class Mine(gradcam.BaseCAM):
        pass

    model = seeded(ConvNet)
    words = r"Mine has no rule for its map: define weighted\(layer\)"
    with untouched(model), pytest.raises(UsageError, match=words):
        Mine(model, [model.layer4])(images(1, 3, 32, 32))

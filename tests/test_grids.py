"""A grid is what moves: found, refused with the figure, and told by the same check everywhere."""

from pathlib import Path

import pytest
import torch
from torch import nn

import dff
from dff.activations.layers import grid_layer, measured, probe_input, survey
from dff.activations.layers.movement import PLACES, movement, patched
from dff.activations.layouts import Layout
from dff.activations.recognition import Ends
from dff.errors import LayerError
from tests.toys import ConvNet, TokenNet, images, seeded, untouched

TINY = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 96}  # fmt: skip


def squares(rows, cols, side=8):
    """Maps of one channel with a bright cell under each of the patches."""
    maps = torch.zeros(len(PLACES), 1, side, side)
    for one, (_, down, right) in zip(maps, PLACES, strict=True):
        one[0, rows(down), cols(right)] = 1
    return maps


def test_a_patch_lies_in_the_middle_of_each_quarter():
    inputs = patched(torch.zeros(1, 3, 16, 32))
    assert inputs.shape == (4, 3, 16, 32)
    for one, (_, down, right) in zip(inputs, PLACES, strict=True):
        rows, cols = torch.nonzero(one[0], as_tuple=True)
        assert (rows.min(), rows.max()) == (2 + 8 * down, 5 + 8 * down)
        assert (cols.min(), cols.max()) == (4 + 16 * right, 11 + 16 * right)
    assert patched(torch.zeros(1, 3, 2, 2)).flatten(1).sum(1).tolist() == [6.0] * 4


def test_what_follows_the_patch_is_a_grid():
    maps = squares(lambda down: 2 + 4 * down, lambda right: 1 + 4 * right)
    moved = movement(maps, maps[:1])
    assert (moved.down, moved.right, moved.aside, moved.noise) == (1, 1, 0, 0)
    assert moved.shift == pytest.approx(1 / 16)
    assert moved.is_grid
    assert moved.problem is None


@pytest.mark.parametrize(
    ("rows", "cols", "figures"),
    [
        (lambda down: 2, lambda right: 1 + 4 * right, "0% of its way down"),
        (lambda down: 2 + 2 * down, lambda right: 4 * right, "50% of its way down"),
        (lambda down: 6 - 4 * down, lambda right: 4 * right, "-100% of its way down"),
    ],
)
def test_what_does_not_follow_is_none(rows, cols, figures):
    maps = squares(rows, cols)
    moved = movement(maps, maps[:1])
    assert not moved.is_grid
    assert figures in moved.problem


def test_what_goes_aside_is_none():
    maps = squares(lambda down: 4 * down, lambda right: 4 * right).transpose(2, 3)
    assert "100% aside" in movement(maps, maps[:1]).problem


def test_what_a_patch_changes_everywhere_alike_has_no_place():
    maps = torch.ones(4, 3, 5, 5)
    assert "wherever a bright patch lies" in movement(maps, maps[:1]).problem
    brighter = maps * torch.arange(1, 5)[:, None, None, None]
    assert not movement(brighter, brighter[:1]).is_grid


class Shuffled(nn.Module):
    """A convolution whose cells come out in another order, for better or worse."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.mixed = nn.Identity()
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.norm(self.mixed(x[:, self.order(x.shape[1])]))
        return self.fc(x.relu().mean(1))


def fixed_order(count):
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)


def test_tokens_in_another_order_are_no_grid():
    model = seeded(Shuffled, fixed_order)
    with untouched(model), pytest.warns(UserWarning, match="'norm', is none: .* taking 'patch'"):
        ready = dff.Explainer(model, preprocessing=PREP)
    assert ready.layer == "patch"
    with pytest.raises(LayerError, match=r"'norm' is no grid of the image: .*% of its way down"):
        dff.Explainer(model, layer="norm", preprocessing=PREP)
    layout = Layout("tokens", 8, 8)
    assert dff.Explainer(model, layer="norm", layout=layout, preprocessing=PREP).layer == "norm"


def test_tokens_that_two_runs_put_otherwise_are_no_grid():
    model = seeded(Shuffled, torch.randperm)
    with pytest.raises(LayerError, match=r"two runs on the same input differ there by .* random"):
        dff.Explainer(model, layer="norm", preprocessing=PREP)


def test_a_model_without_any_says_what_was_tried():
    model = seeded(Shuffled, fixed_order)
    model.patch = nn.Sequential(model.patch, nn.Hardtanh(-1e9, 1e9))
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(8, 8)), nn.Conv2d(3, 4, 1),
                          nn.Flatten(), nn.Linear(256, 3))  # fmt: skip
    with pytest.raises(LayerError, match=r"no layer .* tried, among others, 1: .*; 2: "):
        dff.Explainer(blind.eval(), preprocessing=PREP)


def test_images_that_go_one_by_one_are_tried_one_by_one():
    class Single(ConvNet):
        def forward(self, x):
            assert len(x) == 1, "one at a time"
            return super().forward(x)

    model = seeded(Single)
    surveyed = survey(model, probe_input((32, 32), model))
    plain = survey(seeded(ConvNet), probe_input((32, 32), model))
    found = measured(model, surveyed, ["layer4"])["layer4"].movement
    assert found.is_grid
    expected = measured(seeded(ConvNet), plain, ["layer4"])["layer4"].movement
    assert found.down == pytest.approx(expected.down, abs=0.05)


def test_a_small_grid_is_told_on_larger_inputs():
    model = seeded(ConvNet)
    seen = []
    model.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    found = grid_layer(model, survey(model, probe_input((8, 8), model)))
    assert (found.layout.rows, found.layout.cols) == (2, 2)
    assert seen[-1] == (4, 3, 32, 32)
    assert found.movement.is_grid


def test_what_is_told_on_larger_inputs_must_not_fail_where_these_cannot_be():
    found = survey(seeded(TokenNet), probe_input((32, 32), seeded(TokenNet)))  # fixed positions
    assert grid_layer(seeded(TokenNet), found).layout == Layout("tokens", 4, 4, 1)


def test_tokens_after_the_grid_are_no_part_of_it():
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(**TINY, image_size=[64, 64], num_detection_tokens=36)
    model = seeded(transformers.YolosForObjectDetection, config)
    with untouched(model):
        with pytest.warns(UserWarning, match="taking 'vit'"):
            ready = dff.Explainer(
                model,
                preprocessing=dff.Preprocessing(size=64, fixed=True),
                score=lambda output: output.logits.amax(1),
            )
        assert ready.layout == Ends(1, 36)
        result = ready(images(2, 3, 64, 64), concepts=3)
        assert result.photos[0].grid.shape == (4, 4)
        found = result.contributions(0)
    assert float(found.relative_gap.max()) < 1e-2


def test_queries_of_detectors_are_no_grid():
    transformers = pytest.importorskip("transformers")
    config = transformers.DetrConfig(
        use_pretrained_backbone=False, use_timm_backbone=True, backbone="resnet18", d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=100,
    )  # fmt: skip
    model = seeded(transformers.DetrForObjectDetection, config)
    probe = probe_input((224, 224), model)
    surveyed = survey(model, probe)
    with pytest.raises(LayerError, match=r"'model.decoder' is no grid of the image"):
        grid_layer(model, surveyed, "model.decoder")
    with pytest.warns(UserWarning, match="taking 'model.encoder'"):
        found = grid_layer(model, surveyed)
    assert (found.layout.rows, found.layout.cols) == (7, 7)


def test_a_masked_autoencoder_that_shuffles_is_refused_with_the_reason():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(**TINY, image_size=64, patch_size=8)
    model = seeded(transformers.ViTMAEModel, config)
    surveyed = survey(model, probe_input((64, 64), model), head=False)
    with pytest.raises(LayerError, match="two runs on the same input differ"):
        grid_layer(model, surveyed, "layernorm")


# clips -------------------------------------------------------------------------------------------


class ClipNet(nn.Module):
    """Two strided 3-D convolutions; strides of 2 in time and of 4 in space; tokens if asked."""

    def __init__(self, tokens=False):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1)
        self.body = nn.Conv3d(8, 12, 3, stride=2, padding=1)
        self.tokens = nn.Identity() if tokens else None
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = self.body(self.stem(x).relu()).relu()
        if self.tokens is None:
            return self.fc(x.mean((2, 3, 4)))
        x = x.flatten(2).transpose(1, 2)
        x = self.tokens(torch.cat([x.mean(1, keepdim=True), x], 1))
        return self.fc(x.mean(1))


@pytest.mark.parametrize(
    ("tokens", "layer", "layout"),
    [
        (False, "body", Layout("maps", 4 * 8, 8, frames=4)),
        (True, "tokens", Layout("tokens", 4 * 8, 8, prefix=1, frames=4)),
    ],
)
def test_time_is_an_axis_of_a_clips_grid(tokens, layer, layout):
    model = seeded(ClipNet, tokens)
    with untouched(model):
        surveyed = survey(model, images(1, 3, 8, 32, 32) * 4 - 2)
        found = grid_layer(model, surveyed, layer)
    assert found.layout == layout
    assert found.channels == 12
    assert 0.7 < found.movement.later < 1.3
    assert found.movement.is_grid


def test_grids_of_a_clip_lie_one_below_the_other():
    output = images(2, 12, 4, 3, 5)
    for layout, own in (
        (Layout("maps", 12, 5, frames=4), output),
        (Layout("channels_last", 12, 5, frames=4), output.movedim(1, -1)),
        (Layout("tokens", 12, 5, frames=4), output.flatten(2).transpose(1, 2)),
    ):
        maps = layout.to_maps(own)
        assert torch.equal(maps, output.flatten(2, 3))
        assert torch.equal(layout.from_maps(maps, own), own)
    assert str(Layout("maps", 12, 5, frames=4)) == "maps, 4 x 3 x 5"


def test_frames_in_another_order_are_no_grid():
    class Reversed(ClipNet):
        def forward(self, x):
            return super().forward(x.flip(2))

    model = seeded(Reversed)
    with pytest.raises(LayerError, match=r"'body' is no grid .*-\d+% to later frames"):
        grid_layer(model, survey(model, images(1, 3, 8, 32, 32) * 4 - 2), "body")


def r3d():
    """r3d_18 with half as many blocks."""
    from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet

    return VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], BasicStem, num_classes=5)


def swin3d():
    """swin3d_t with fewer and narrower blocks."""
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    return SwinTransformer3d(
        [2, 4, 4], embed_dim=24, depths=[2, 2, 2], num_heads=[1, 2, 4], window_size=[8, 7, 7]
    )


@pytest.mark.parametrize(("build", "layer"), [(r3d, "layer4"), (swin3d, "norm")])
def test_video_networks_of_torchvision(build, layer):
    model = seeded(build)
    found = grid_layer(model, survey(model, probe_input((64, 64), model, frames=8)))
    assert found.name == layer
    assert found.movement.is_grid


# real weights ------------------------------------------------------------------------------------

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real weights beside the project are missing")
@pytest.mark.parametrize(
    ("name", "weights", "layer"),
    [
        ("mobilenet_v2", "mobilenet_v2_imagenet.safetensors", "features"),
        ("timm:tf_efficientnet_lite0", "tf_efficientnet_lite0_imagenet.safetensors", "bn2"),
        ("hf:vit_s14_dinov2_style", None, "layernorm"),
    ],
)
def test_a_patch_moves_in_the_last_layers_of_trained_networks(name, weights, layer):
    if name.startswith("hf:"):
        loaded = dff.load_model(f"hf:{SHARED / name[3:]}", size=224)
    else:
        loaded = dff.load_model(name, weights=SHARED / weights, size=224)
    explainer = dff.Explainer(loaded)
    moved = explainer.layer_info.movement
    assert explainer.layer == layer
    assert moved.is_grid
    assert 0.85 < min(moved.down, moved.right) < max(moved.down, moved.right) < 1.15
    assert moved.aside < 0.15
    assert moved.noise < 1e-6

import pytest
import torch
import torchvision
from torch import nn

from dff.activations.layers import probe_input, survey
from dff.activations.layers.geometry import Geometry
from dff.activations.layouts import Layout
from dff.errors import LayerError
from dff.maps import Grid
from dff.models import describe
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched


def test_the_default_layer_is_the_last_with_a_grid():
    model = seeded(ConvNet).train()
    with untouched(model):
        found = survey(model, images(1, 3, 32, 32))
    assert found.default().name == "layer4"
    assert found.default().channels == 12
    assert found.outputs == 5
    with pytest.raises(LayerError, match="'nope' did not run"):
        found["nope"]


def test_a_grid_that_no_longer_reaches_the_logits_is_not_chosen():
    found = survey(seeded(TokenNet), images(1, 3, 32, 32))
    assert not found["blocks.2"].reaches
    assert found["blocks.2"].passes_all
    assert found["blocks.1"].reaches
    assert found.default().name == "blocks.1"
    assert found.default().layout == Layout("tokens", 4, 4, 1)


def test_a_head_of_zeros_does_not_hide_what_reaches_it():
    model = seeded(TokenNet)
    torch.nn.init.zeros_(model.head.weight)
    assert survey(model, images(1, 3, 32, 32)).default().name == "blocks.1"


def test_a_branch_beside_a_skip_is_not_chosen():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.branch = nn.Conv2d(4, 4, 3, padding=1)
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.fc((x + self.branch(x)).mean((2, 3)))

    found = survey(seeded(Residual), images(1, 3, 8, 8))
    assert found["branch"].reaches
    assert not found["branch"].passes_all
    assert found.default().name == "stem"


def test_a_model_without_a_grid():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    with pytest.raises(LayerError, match="no layer of this model has a grid"):
        survey(model, images(1, 3, 8, 8)).default()


@pytest.mark.parametrize(
    ("name", "layer", "first"),
    [
        ("resnet18", "layer4", 0.5),
        ("mobilenet_v2", "features", 0.5),
        ("vgg11", "features", 16),
        ("alexnet", "features", 31.5),  # no paddings in its pools
        ("shufflenet_v2_x0_5", "conv5", 0.5),
        ("mnasnet0_5", "layers", 0.5),
        ("efficientnet_b0", "features", 0.5),  # whose squeeze-and-excitation leads astray
        ("densenet121", "features", 14.5),  # odd kernels at first, even pools later
        ("convnext_tiny", "features", 16),
    ],
)
def test_torchvision_layers_and_their_geometry(name, layer, first):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None)
    found = survey(model, probe_input((224, 224), model))
    assert found.default().name == layer
    found = found.geometry(layer)
    assert (found.stride, found.first) == (32, first)


def test_cells_of_a_network_padded_at_the_end_lie_a_stride_inside():
    timm = pytest.importorskip("timm")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    found = survey(model, probe_input((224, 224), model))
    geometry = found.geometry(found.default().name)
    assert (geometry.stride, geometry.first) == (32, 31.5)


def test_patches_tile_and_odd_kernels_anchor():
    tokens = survey(seeded(TokenNet), images(1, 3, 32, 32))
    assert tokens.geometry("patch").grid(4, 4, (32, 32)) == Grid.tiled(
        4, 4, 32, 32, field=tokens.geometry("patch").field
    )
    convolved = survey(seeded(ConvNet), images(1, 3, 64, 64)).geometry("layer4")
    assert (convolved.stride, convolved.first) == (4, 0.5)
    pixels = survey(seeded(PixelNet), images(1, 3, 9, 9))
    assert pixels.default().name == "body"
    assert (pixels.geometry("body").stride, pixels.geometry("body").first) == (1, 0.5)


@pytest.mark.parametrize("size", [97, 225, 289])
@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer4"), ("mobilenet_v2", "features")])
def test_odd_kernels_anchor_at_odd_sizes_too(name, layer, size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None)
    found = survey(model, probe_input((size, size), model))
    assert (found.geometry(layer).stride, found.geometry(layer).first) == (32, 0.5)


def test_patches_of_a_padded_input_lie_where_they_are():
    model = nn.Sequential(nn.ZeroPad2d((0, 7, 0, 7)), nn.Conv2d(3, 6, 8, 8), nn.Flatten(),
                          nn.Linear(6 * 5 * 5, 3))  # fmt: skip
    found = survey(model, images(1, 3, 33, 33)).geometry("1")
    assert (found.stride, found.first) == (8, 4)


def test_grids_at_other_input_sizes():
    anchored = Geometry(32).grid(8, 12, (225, 353))
    assert anchored.stride == (32, 32)
    assert anchored.offset == (0.5, 0.5)
    assert Geometry().grid(8, 12, (224, 336)) == Grid.tiled(8, 12, 224, 336)


def test_a_deeper_cell_sees_more_of_the_input():
    patch = survey(seeded(TokenNet), images(1, 3, 32, 32)).geometry("patch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.get_model("resnet18", weights=None)
    found = survey(model, probe_input((224, 224), model))
    fields = [found.geometry(layer).field for layer in ("layer1", "layer2", "layer3", "layer4")]
    assert 0 < patch.field < 8, "half of a patch of 8 pixels"
    assert fields == sorted(fields)
    assert 32 < fields[-1] < 112


def _default_of(model, size):
    head = describe(model).unscored is None
    return survey(model.eval(), probe_input((size, size), model), head=head).default()


def test_projections_inside_attention_are_passed_over():
    timm = pytest.importorskip("timm")
    siglip = timm.create_model("vit_base_patch16_siglip_224", depth=2, num_classes=5)
    assert _default_of(siglip, 224).name == "norm"
    crossvit = timm.create_model("crossvit_tiny_240")
    assert _default_of(crossvit, 240).name == "blocks.2.fusion.1.norm1"


def test_maps_of_one_channel_are_passed_over():
    transformers = pytest.importorskip("transformers")
    config = transformers.DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 32, 32], image_size=64,
        fusion_hidden_size=16, patch_size=16, is_hybrid=False, num_labels=7,
    )  # fmt: skip
    depth = _default_of(transformers.DPTForDepthEstimation(config), 64)
    assert (depth.name, depth.channels) == ("head.head.3", 32)
    assert _default_of(transformers.DPTForSemanticSegmentation(config), 64).channels == 16


def test_where_nothing_but_attention_has_a_grid_it_is_taken():
    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Conv2d(3, 8, 4, stride=4)

        def forward(self, x):
            return self.values(x).mean((2, 3))

    model = nn.Sequential(SelfAttention(), nn.Linear(8, 5))
    assert _default_of(model, 32).name == "0.values"

"""Any model, nothing to configure: a fast part of the support table, and wrapped models."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

import dff
from benchmarks.support_table import PAGE, Case, Row, all_cases, check_case, page
from dff.activations.layers import survey
from dff.activations.outputs import read_scores
from dff.errors import LayerError
from tests.toys import ConvNet, TokenNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)


@pytest.mark.parametrize(
    "name",
    ["densenet121", "mobilenet_v3_small", "regnet_x_400mf", "resnet18",
     "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"],
)  # fmt: skip
def test_models_of_torchvision(name):
    (case,) = [c for c in all_cases([f"torchvision:{name}"]) if c.name == name]
    assert check_case(case).failure == ""


@pytest.mark.parametrize(
    "name",
    ["beit", "clip", "convnext", "deit", "dinov2-registers", "resnet",
     "swin", "vit"],
)  # fmt: skip
def test_models_of_hugging_face(name):
    (case,) = [c for c in all_cases([f"hf:{name}"]) if c.name == name]
    assert check_case(case).failure == ""


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_vit", 160), ("test_convnext", 160), ("test_byobnet", 160), ("test_efficientnet", 160)],
)
def test_models_of_timm(name, size):
    timm = pytest.importorskip("timm")
    assert check_case(Case("timm", name, lambda: timm.create_model(name), size)).failure == ""


@pytest.mark.parametrize("name", ["Dinov2WithRegistersModel", "CLIPVisionModelWithProjection",
                                  "ConvNextModel", "vit_small_patch16_dinov3"])  # fmt: skip
def test_backbones(name):
    (case,) = [c for c in all_cases([f"backbone:{name}"]) if c.name == name]
    row = check_case(case)
    assert row.failure == ""
    assert "no head" in page([row])


def test_the_page_names_failures_with_their_reason():
    rows = [
        Row(
            "timm",
            "good",
            64,
            "blocks",
            "maps",
            "4 x 4",
            True,
            1e-7,
            moves="99% / 98%",
            passed="'head' is none",
        ),
        Row("timm", "bad", 96, failure="its latents are no grid"),
    ]
    text = page(rows)
    assert "1 of 2 (50%)" in text
    assert "- `bad` (96 px): its latents are no grid" in text
    assert "| good | 64 | `blocks` | maps | 4 x 4 | 99% / 98% | closed form | 1e-07 |" in text
    assert "- `good`: 'head' is none" in text


def test_a_check_that_fails_says_so():
    class Blind(ConvNet):
        def forward(self, x):
            return super().forward(torch.flip(x, [3]))

    row = check_case(Case("toys", "mirrored", lambda: seeded(Blind), 64))
    assert re.search(r"10\d% of its way down and -\d+% to the right", row.failure)
    row = check_case(Case("toys", "unbuilt", lambda: 1 / 0, 64))
    assert row.failure == "cannot be built: division by zero"


def test_the_page_is_there():
    text = PAGE.read_text(encoding="utf-8")
    for title in ("torchvision", "timm", "Hugging Face"):
        assert f"## {title}" in text


# wrapped, compiled, frozen, in other precisions --------------------------------------------------


def compiled(model):
    return torch.compile(model, backend="eager")


def partly_compiled(model):
    model.layer4 = compiled(model.layer4)
    return model


def compiled_in_place(model):
    model.compile(backend="eager")
    model.layer4.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, compiled, lambda m: compiled(nn.DataParallel(m)), partly_compiled,
     compiled_in_place],
)  # fmt: skip
def test_wrapped_models_are_explained_as_the_model_inside(wrap):
    x = images(2, 3, 32, 32)
    plain = dff.Explainer(seeded(ConvNet), preprocessing=PREP)(x, concepts=3)
    model = wrap(seeded(ConvNet)).eval()
    expected = model(x).detach()
    ready = dff.Explainer(model, preprocessing=PREP)
    result = ready(x, concepts=3)
    assert ready.layer == "layer4"
    assert torch.equal(result.concept_logits, plain.concept_logits)
    torch.testing.assert_close(model(x).detach(), expected)
    torch.testing.assert_close(result.contributions(1).values, plain.contributions(1).values)


@pytest.mark.parametrize("kind", [ConvNet, TokenNet])
def test_frozen_models_and_other_precisions(kind):
    x = images(1, 3, 32, 32)
    for dtype, close in ((torch.float64, 1e-2), (torch.bfloat16, 5e-2)):
        model = seeded(kind).to(dtype).requires_grad_(False)
        with untouched(model):
            result = dff.Explainer(model, preprocessing=PREP)(x, concepts=3)
            found = result.contributions(1)
            assert result.cam(1).max() <= 1
        assert found.relative_gap.max() < close
        assert result.scores.dtype == torch.float32


def test_a_model_split_over_devices_keeps_its_parts_in_place():
    class Split(ConvNet):  # two precisions stand for two devices
        def forward(self, x):
            x = self.layer4(self.stem(x)).double()
            return self.fc(x.mean((2, 3)))

    model = seeded(Split)
    model.fc.double()
    result = dff.Explainer(model, preprocessing=PREP)(images(1, 3, 32, 32), concepts=3)
    assert result.contributions(0).relative_gap < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_split_between_cpu_and_gpu():
    class Split(ConvNet):
        def forward(self, x):
            x = self.layer4(self.stem(x)).cuda()
            return self.fc(x.mean((2, 3)))

    model = seeded(Split)
    model.fc.cuda()
    result = dff.Explainer(model, preprocessing=PREP)(images(1, 3, 32, 32), concepts=3)
    assert result.contributions(0).relative_gap < 1e-4


# outputs of all kinds -----------------------------------------------------------------------------


@dataclass
class Output:
    logits: torch.Tensor
    note: str = ""


class WithFeatures(NamedTuple):
    features: torch.Tensor
    logits: torch.Tensor


@pytest.mark.parametrize(
    "pack",
    [
        lambda y: (y, None),
        lambda y: [y],
        lambda y: {"loss": None, "logits": y},
        lambda y: {"features": y[:, :2], "logits": y},
        Output,
        lambda y: WithFeatures(y[:, :2], y),
    ],
)
def test_outputs_of_all_kinds_are_read(pack):
    class Packed(ConvNet):
        def forward(self, x):
            return pack(super().forward(x))

    x = images(1, 3, 32, 32)
    plain = dff.Explainer(seeded(ConvNet), preprocessing=PREP)(x, concepts=3)
    result = dff.Explainer(seeded(Packed), preprocessing=PREP)(x, concepts=3)
    torch.testing.assert_close(result.logits, plain.logits)
    torch.testing.assert_close(result.concept_logits, plain.concept_logits)
    torch.testing.assert_close(result.contributions(2).values, plain.contributions(2).values)


def test_positions_of_an_output_are_averaged():
    maps = images(2, 5, 3, 4)
    torch.testing.assert_close(read_scores({"out": maps, "aux": maps[:1]}), maps.mean((2, 3)))
    torch.testing.assert_close(read_scores(maps.flatten(2)), maps.flatten(2).mean(1))


def test_segmentation_models_are_explained():
    class Segmenter(ConvNet):
        def forward(self, x):
            maps = self.layer4(self.stem(x))
            return {"out": nn.functional.conv2d(maps, self.fc.weight[:, :, None, None])}

    ready = dff.Explainer(seeded(Segmenter), preprocessing=PREP)
    result = ready(images(1, 3, 32, 32), concepts=3)
    assert result.logits.shape == (1, 5)
    assert result.contributions(1).linear


def test_a_layer_with_a_pooled_twin_is_not_chosen():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = ConvNet().layer4
            self.stem = ConvNet().stem

        def forward(self, x):
            maps = self.inner(self.stem(x))
            return {"last_hidden_state": maps, "pooler_output": maps.mean((2, 3))}

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone()
            self.fc = nn.Linear(12, 5)

        def forward(self, x):
            return self.fc(self.backbone(x)["pooler_output"])

    found = survey(seeded(Pooled), images(1, 3, 32, 32))
    assert not found["backbone"].alone
    assert found.default().name == "backbone.inner"


def test_windows_laid_out_as_items_are_no_grid():
    class Windows(ConvNet):
        def __init__(self):
            super().__init__()
            self.windows = nn.Conv2d(12, 12, 1)

        def forward(self, x):
            maps = self.layer4(self.stem(x))
            n, c, h, w = maps.shape
            cut = maps.reshape(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5)
            done = self.windows(cut.reshape(n * 4, c, h // 2, w // 2))
            return self.fc(done.mean((2, 3)).reshape(n, 4, c).mean(1))

    model = seeded(Windows)
    assert survey(model, images(1, 3, 32, 32))["windows"].layout is None
    with pytest.raises(LayerError, match=r"'windows' has no grid: its output is \(8, 12, 4, 4\)"):
        dff.Explainer(model, layer="windows", preprocessing=PREP)(images(2, 3, 32, 32))

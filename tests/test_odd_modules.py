"""Modules that are used twice, quantised, compiled by torch.jit, or record no gradient."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import dff
from dff.activations.layers import probe_input, survey
from dff.activations.outputs import read_scores
from dff.activations.reach import by_swapping, no_gradients
from dff.activations.tail import after_layer
from dff.errors import LayerError, ModelError
from gradcam import GradCAM
from tests.toys import ConvNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.5)
PHOTO = np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8)


class OneReLU(nn.Module):
    """One ReLU after every layer."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv2 = nn.Conv2d(8, 12, 3, 2, 1)
        self.conv3 = nn.Conv2d(12, 12, 3, 1, 1)
        self.relu = nn.ReLU(inplace=inplace)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc1 = nn.Linear(48, 20)
        self.fc2 = nn.Linear(20, 5)

    def forward(self, x):
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = self.relu(convolution(x))
        return self.fc2(self.relu(self.fc1(self.pool(x).flatten(1))))


@pytest.mark.parametrize("layer", [None, "conv1", "conv2", "conv3", "pool"])
@pytest.mark.parametrize("inplace", [False, True])
def test_one_relu_for_all_layers(inplace, layer):
    model = seeded(OneReLU, inplace=inplace)
    with untouched(model):
        result = dff.Explainer(model, layer=layer, preprocessing=PREP)(PHOTO, concepts=3)
        split = result.contributions()
        assert split.relative_gap.max() < 0.01
        torch.testing.assert_close(
            split.values.sum(1) + split.rest + split.gap, split.logit, rtol=1e-4, atol=1e-5
        )
        for kind in ("ablation", "sobol", "gradient", "blur"):
            assert result.evidence(kind).values.isfinite().all()
        assert np.isfinite(result.cam()).all()
        logits = result.concept_module()(result.photos[0].layer_coefficients[None])
    torch.testing.assert_close(logits, result.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("run", "convolution", "stride"), [(1, 1, 2), (2, 2, 4), (3, 3, 4)])
def test_a_run_of_a_relu_that_runs_more_than_once(run, convolution, stride, inplace):
    model = seeded(OneReLU, inplace=inplace)
    explainer = dff.Explainer(model, layer=f"relu:{run}", preprocessing=PREP)
    with untouched(model):
        result = explainer(PHOTO, concepts=3)
        split = result.contributions()
    assert split.relative_gap.max() < 0.01
    assert result.evidence("ablation").values.isfinite().all()
    assert np.isfinite(result.cam()).all()
    before = dff.Explainer(model, layer=f"conv{convolution}", preprocessing=PREP)
    expected = before(PHOTO, concepts=3).photos[0].activations.relu()
    torch.testing.assert_close(result.photos[0].activations, expected)
    assert result.photos[0].layer_grid.stride == (stride, stride)
    assert (result.photos[0].activations >= 0).all()
    logits = result.concept_module()(result.photos[0].layer_coefficients[None])
    torch.testing.assert_close(logits, result.logits, rtol=1e-4, atol=1e-5)


def test_runs_that_are_not_named_or_not_there():
    model = seeded(OneReLU, inplace=True)
    with pytest.raises(LayerError, match=r"runs more than once.*'relu:2' is the second"):
        GradCAM(model, "relu")(images(1, 3, 32, 32))
    with pytest.raises(LayerError, match="'relu:5' did not run"):
        GradCAM(model, "relu:5")(images(1, 3, 32, 32))
    with pytest.raises(LayerError, match="no layer 'relu:0'"):
        GradCAM(model, "relu:0")
    assert np.isfinite(GradCAM(model, ["relu:2", "relu:3"])(images(1, 3, 32, 32))).all()


def test_the_modules_after_a_run_are_those_after_that_run():
    model = seeded(OneReLU, inplace=True)
    x = images(1, 3, 32, 32)
    assert model.conv3 in after_layer(model, "relu:2", x)
    assert model.conv3 not in after_layer(model, "relu:3", x)


def quantised() -> nn.Module:
    """A network in int8, its images and logits in floating point."""
    import torch.ao.quantization as quantization

    layers = seeded(
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 5),
        )
    )
    model = quantization.QuantWrapper(layers).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
        prepared = quantization.prepare(model)
        prepared(images(8, 3, 32, 32) * 2 - 1)
        return quantization.convert(prepared)


def dynamic() -> nn.Module:
    """A network in floating point with a head in int8."""
    import torch.ao.quantization as quantization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantization.quantize_dynamic(seeded(ConvNet), {nn.Linear})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "layer"), [(quantised, "module.1"), (dynamic, "layer4")], ids=["int8", "dynamic"]
)
def test_int8_models_give_concepts_and_scores(make, layer, tmp_path):
    model = make()
    explainer = dff.Explainer(model, preprocessing=PREP)
    assert explainer.layer == layer
    assert explainer.unscored is None
    x = explainer.preprocessing.to_tensor(dff.read_image(PHOTO))[None]
    result = explainer(PHOTO, concepts=3)
    torch.testing.assert_close(result.logits, model(x), rtol=0.05, atol=0.02)
    assert (result.scores.std(0) > 0).any()
    assert result.maps().max() > 0.5
    for kind in ("ablation", "sobol", "blur"):
        assert result.evidence(kind).values.isfinite().all()
    assert result.evidence("ablation").values.abs().max() > 0
    assert result.panel().width > 96
    result.save(tmp_path)
    for ask in (
        result.cam,
        result.contributions,
        result.check,
        lambda: result.evidence("gradient"),
        lambda: GradCAM(model, layer)(x),
    ):
        with pytest.raises(ModelError, match="no gradient passes int8 layers") as raised:
            ask()
        assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [quantised, dynamic])
def test_int8_models_take_a_dataset(make, tmp_path):
    from PIL import Image

    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(np.roll(PHOTO, 9 * i, 0)).save(tmp_path / f"in/{i}.png")
    explainer = dff.Explainer(make(), preprocessing=PREP)
    run = dff.colocalize(tmp_path / "in", tmp_path / "out", model=explainer, concepts=2)
    assert run.table("images")["error"].null_count == 3


@pytest.mark.filterwarnings("ignore")
def test_int8_layers_without_their_stubs_say_so():
    with pytest.raises(ModelError, match="QuantStub and DeQuantStub"):
        dff.Explainer(quantised().module, preprocessing=PREP)


class Recording(ConvNet):
    """A forward that records nothing, unless a hook switches recording on."""

    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Detaching(ConvNet):
    """A forward that cuts the graph after the layer."""

    def forward(self, x):
        x = self.layer4(self.stem(x)).detach()
        return self.fc(self.avgpool(x).flatten(1))


def test_a_forward_without_gradients_is_recorded_from_the_layer_on():
    result = dff.Explainer(seeded(Recording), preprocessing=PREP)(PHOTO, concepts=3)
    plain = dff.Explainer(seeded(ConvNet), preprocessing=PREP)(PHOTO, concepts=3)
    assert result.unscored is None
    torch.testing.assert_close(result.contributions().values, plain.contributions().values)
    assert result.cam().max() == 1


def test_a_forward_that_detaches_gives_concepts_and_scores():
    model = seeded(Detaching)
    result = dff.Explainer(model, preprocessing=PREP)(PHOTO, concepts=3)
    assert result.unscored is None
    assert result.evidence("ablation").values.abs().max() > 0
    assert result.panel().width > 96
    for ask in (result.cam, result.contributions, lambda: result.evidence("gradient")):
        with pytest.raises(ModelError, match="something in it detaches"):
            ask()


@pytest.mark.parametrize("kind", [ConvNet, OneReLU])
def test_swapping_finds_what_gradients_find(kind):
    model = seeded(kind, **({"inplace": True} if kind is OneReLU else {}))
    x = probe_input((32, 32), model)
    found = survey(model, x)
    names = [info.name for info in found.layers if info.layout and info.runs == 1]
    with torch.no_grad():
        reaching, passing = by_swapping(model, x, names, read_scores)
    assert reaching == {name for name in names if found[name].reaches}
    assert passing == {name for name in names if found[name].passes_all}
    assert no_gradients(model) is None


def test_swapping_ends_at_the_layer_that_is_chosen():
    model, runs = seeded(Detaching), []
    model.stem.register_forward_hook(lambda *_: runs.append(1))
    found = survey(model, probe_input((32, 32), model))
    assert found.default().name == "layer4"
    assert found["stem.0"].reaches
    assert len(runs) <= 9  # one recorded, two to compare with, three for each layer that was tried


def compiled(way: str, module: nn.Module, x: torch.Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module) if way == "script" else torch.jit.trace(module, x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["script", "trace"])
def test_compiled_models_say_why_they_are_not_heard(way):
    model = compiled(way, seeded(ConvNet), images(1, 3, 32, 32))
    with pytest.raises(LayerError, match=r"torch.jit \(script or trace\).*Python module that it"):
        dff.Explainer(model, preprocessing=PREP)
    with pytest.raises(LayerError, match=r"'layer4' did not run.*Python module that it"):
        GradCAM(model, "layer4")(images(1, 3, 32, 32))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["script", "trace"])
def test_compiled_parts_of_a_python_model_are_heard(way):
    model = seeded(ConvNet)
    plain = dff.Explainer(model, preprocessing=PREP)(PHOTO, concepts=3)
    whole = copy.deepcopy(model)
    x = images(1, 3, 32, 32)
    whole.stem = compiled(way, whole.stem, x)
    whole.layer4 = compiled(way, whole.layer4, model.stem(x))
    explainer = dff.Explainer(whole, preprocessing=PREP)
    assert explainer.layer == "layer4"
    result = explainer(PHOTO, concepts=3)
    torch.testing.assert_close(result.logits, plain.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        result.contributions().values, plain.contributions().values, rtol=1e-3, atol=1e-4
    )
    assert np.isfinite(result.check().deletion.auc)
    np.testing.assert_allclose(result.cam(), plain.cam(), atol=1e-3)
    assert not any(module._forward_hooks for module in whole.modules())

"""Captum's methods behind one call: values, what they miss, and what a model gets back."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from dff.attributions import METHODS, TargetLayer, attribute, attribution_method, why_not
from dff.errors import LayerError, MissingExtraError, ModelError, UsageError
from dff.maps import Grid
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched

captum = pytest.importorskip("captum.attr")

QUICK = {"occlusion": {"stride": 2}, "kernel-shap": {"samples": 40}}


class Reused(nn.Module):
    """One in-place ReLU that runs twice, as in a ResNet's block."""

    def __init__(self, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.act = act(inplace=True)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.act(self.one(x))
        return self.fc(self.act(self.two(x) + x).mean((2, 3)))


def signed(*shape: int, seed: int = 0) -> torch.Tensor:
    return 4 * images(*shape, seed=seed) - 2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_maps_and_the_model_back(name):
    model, x = seeded(ConvNet), signed(2, 3, 16, 16)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = x.clone()
    with untouched(model), torch.no_grad():
        found = attribute(model, x, [1, 2], name, layer="layer4", settings=QUICK.get(name))
    assert torch.equal(x, before)
    assert not x.requires_grad
    channels = 1 if METHODS[name].layer else 3
    assert found.values.shape == (2, channels, 16, 16)
    assert found.values.dtype == torch.float32
    assert found.values.abs().amax((1, 2, 3)).min() > 0
    model.eval()
    with torch.no_grad():
        assert torch.allclose(found.scores, model(x)[[0, 1], [1, 2]], atol=1e-6)


@pytest.mark.parametrize("name", ["integrated-gradients", "deeplift", "input-x-gradient"])
def test_a_linear_model_is_split_exactly(name):
    model, x = seeded(PixelNet), signed(1, 3, 4, 5)
    found = attribute(model, x, 2, name)
    expected = x * model.fc.weight[2][:, None, None] / 20
    assert torch.allclose(found.values, expected, atol=1e-6)
    if found.delta is not None:
        assert found.delta.abs().max() < 1e-6
        assert found.relative_delta.max() < 1e-5


def test_what_an_occluded_window_loses():
    model, x = seeded(PixelNet), signed(1, 3, 4, 4)
    found = attribute(model, x, 0, "occlusion", settings={"window": 2, "stride": 2})
    each = x * model.fc.weight[0][:, None, None] / 16
    lost = torch.nn.functional.avg_pool2d(each.sum(1, keepdim=True), 2) * 4
    expected = lost.repeat_interleave(2, -1).repeat_interleave(2, -2).expand(1, 3, 4, 4)
    assert torch.allclose(found.values, expected, atol=1e-6)


def test_features_of_a_mask():
    model, x = seeded(PixelNet), signed(1, 3, 4, 4)
    mask = torch.tensor([[7, 7, 9, 9]] * 4)
    found = attribute(model, x, 0, "feature-ablation", settings={"mask": mask})
    each = (x * model.fc.weight[0][:, None, None] / 16).sum((1,))
    assert torch.allclose(found.values[0, 0, 0, :2], each[0, :, :2].sum(), atol=1e-6)
    assert torch.allclose(found.values[0, 2, 3, 2:], each[0, :, 2:].sum(), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_equal_to_captum(batch):
    model, x = seeded(ConvNet, relu=False), signed(1, 3, 16, 16)
    ours = attribute(model, x, 3, "integrated-gradients", settings={"n_steps": 7}, batch=batch)
    theirs, delta = captum.IntegratedGradients(model).attribute(
        x.clone(), target=3, n_steps=7, return_convergence_delta=True
    )
    assert torch.allclose(ours.values, theirs.float(), atol=1e-6)
    assert torch.allclose(ours.delta, delta.float(), atol=1e-6)
    ours = attribute(model, x, 3, "occlusion", settings={"window": 5, "stride": 3}, batch=batch)
    theirs = captum.Occlusion(model).attribute(
        x, target=3, sliding_window_shapes=(3, 5, 5), strides=(3, 3, 3), baselines=0.0
    )
    assert torch.allclose(ours.values, theirs, atol=1e-6)


def test_deeplift_splits_what_captum_refuses():
    """An activation that runs twice, in place, and kinds that Captum has no rule for."""
    x = signed(1, 3, 8, 8)
    with pytest.raises(RuntimeError, match="used more than once"):
        captum.DeepLift(seeded(Reused)).attribute(x.clone(), target=0)
    for act in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish):
        model = seeded(Reused, act)
        with untouched(model):
            found = attribute(model, x, 0, "deeplift")
        with torch.no_grad():
            whole = model(x)[0, 0] - model(torch.zeros_like(x))[0, 0]
        assert found.values.sum() == pytest.approx(float(whole), abs=1e-5)
        assert found.relative_delta.max() < 1e-3


def test_what_deeplift_misses_is_said():
    class Functional(Reused):
        def forward(self, x):
            return self.fc((self.one(x) ** 2).mean((2, 3)))

    found = attribute(seeded(Functional), signed(1, 3, 8, 8), 0, "deeplift")
    assert found.relative_delta.max() > 0.1


def test_a_baseline_is_a_number_or_a_tensor():
    model, x = seeded(PixelNet), signed(1, 3, 4, 4)
    for name in ("integrated-gradients", "deeplift", "feature-ablation", "occlusion"):
        one = attribute(model, x, 0, name, settings={"baseline": 0.5})
        other = attribute(model, x, 0, name, settings={"baseline": torch.full((3, 1, 1), 0.5)})
        assert torch.allclose(one.values, other.values, atol=1e-6)
        zero = attribute(model, x, 0, name)
        assert not torch.allclose(one.values, zero.values, atol=1e-4)


def test_several_targets_of_one_input():
    model, x = seeded(ConvNet), signed(1, 3, 16, 16)
    for name in ("saliency", "integrated-gradients", "occlusion", "deeplift"):
        several = attribute(model, x, [4, 0], name, settings=QUICK.get(name))
        for i, target in enumerate((4, 0)):
            alone = attribute(model, x, target, name, settings=QUICK.get(name))
            assert torch.allclose(several.values[i], alone.values[0], atol=1e-6)


def test_perturbed_inputs_run_once_for_all_targets():
    runs = []
    model, x = seeded(ConvNet), signed(1, 3, 16, 16)
    handle = model.register_forward_hook(lambda _, inputs, __: runs.append(len(inputs[0])))
    attribute(model, x, 0, "feature-ablation", settings={"cells": 4})
    alone = sum(runs)
    runs.clear()
    attribute(model, x, [0, 1, 2, 3], "feature-ablation", settings={"cells": 4})
    handle.remove()
    assert sum(runs) == alone == 1 + 1 + 16


def test_progress_counts_inputs():
    ran = []
    attribute(
        seeded(ConvNet), signed(1, 3, 16, 16), 0, settings={"n_steps": 10}, progress=ran.append
    )
    assert sum(ran) >= 10


def test_random_draws_have_a_seed():
    model, x = seeded(ConvNet), signed(1, 3, 16, 16)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for name in ("smoothgrad", "gradient-shap", "kernel-shap"):
        one = attribute(model, x, 0, name, settings=QUICK.get(name))
        again = attribute(model, x, 0, name, settings=QUICK.get(name))
        other = attribute(model, x, 0, name, settings={**QUICK.get(name, {}), "seed": 1})
        assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
        assert torch.equal(one.values, again.values)
        assert not torch.equal(one.values, other.values)


def test_an_output_of_more_axes():
    model = nn.Sequential(nn.Conv2d(3, 2, 1))
    found = attribute(model, signed(2, 3, 4, 4), (1, 0, 3), "saliency")
    assert found.values[:, :, 0, 3].min() > 0
    assert found.values.flatten(2).count_nonzero() == 2 * 3


def test_an_output_of_one_number():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0))
    found = attribute(model, signed(2, 3, 2, 2), None, "integrated-gradients")
    assert found.values.shape == (2, 3, 2, 2)
    assert found.delta.abs().max() < 1e-5


def test_a_layer_of_tokens_has_cells():
    model, x = seeded(TokenNet), signed(1, 3, 32, 32)
    found = attribute(model, x, 1, "gradient-x-activation", layer="blocks.1")
    assert found.values.shape == (1, 1, 32, 32)
    assert found.values.std() > 0


def test_a_part_of_a_fused_layer():
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=48, num_heads=2, num_classes=4
    ).eval()
    x = signed(1, 3, 64, 64)
    maps = {
        part: attribute(model, x, 1, "gradient-x-activation", layer=f"blocks.1.attn.qkv{part}")
        for part in ("", ":key", ":query", ":value")
    }
    parts = sum(maps[part].values for part in (":key", ":query", ":value"))
    assert torch.allclose(parts, maps[""].values, atol=1e-6)


def test_cells_lie_where_the_grid_says():
    model, x = seeded(ConvNet), signed(1, 3, 16, 16)
    tiled = attribute(model, x, 1, "layer-gradcam", layer=model.layer4)
    grid = Grid.anchored(4, 4, 16, 16, (4, 4))
    anchored = attribute(model, x, 1, "layer-gradcam", layer=TargetLayer("layer4", grid=grid))
    assert tiled.values.shape == anchored.values.shape
    assert not torch.allclose(tiled.values, anchored.values)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"method": "integratd-gradients"}, "did you mean 'integrated-gradients'"),
        ({"method": "gradient magic"}, "there is no method"),
        ({"target": 9}, "target 9 is outside the output, whose places are 0 to 4"),
        ({"target": -1}, "outside the output"),
        ({"target": (1, 2)}, "a target has 1 index, not 2"),
        ({"target": None}, "a target says which"),
        ({"target": [0, 1, 2]}, "one target for each of 2 inputs, got 3"),
        ({"target": "tabby"}, "a target is an index"),
        ({"settings": {"steps": 3}}, "no setting 'steps'; did you mean 'n_steps'"),
        ({"settings": {"n_steps": 1}}, "n_steps is a whole number from 2 on"),
        ({"settings": {"baseline": float("nan")}}, "baseline is a number"),
        ({"settings": {"baseline": torch.zeros(3, 5, 5)}}, "baseline is .*not .3, 5, 5"),
        ({"method": "occlusion", "settings": {"window": 3, "stride": 4}}, "leaves pixels out"),
        ({"method": "feature-ablation", "settings": {"mask": torch.zeros(3, 3).long()}}, "mask"),
        ({"batch": 0}, "batch"),
        ({"inputs": torch.zeros(3, 16, 16)}, "channels, height, width"),
        ({"inputs": torch.zeros(1, 3, 16, 16).long()}, "floating point"),
    ],
)
def test_what_cannot_be(words, match):
    model = seeded(ConvNet)
    call = {"inputs": signed(2, 3, 16, 16), "target": 0, **words}
    with untouched(model), pytest.raises(UsageError, match=match):
        attribute(model, **call)


def test_what_a_model_cannot_have():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = signed(1, 3, 8, 8)
    with pytest.raises(ModelError, match=r"has none .* can have saliency, .*occlusion"):
        attribute(model, x, 0, "guided-backprop")
    with pytest.raises(ModelError, match=r"by a layer, and none is named; .*can have"):
        attribute(model, x, 0, "layer-gradcam")
    with pytest.raises(LayerError, match="no layer"):
        attribute(model, x, 0, "layer-gradcam", layer="nowhere")
    assert why_not("saliency", model) is None
    with pytest.raises(ModelError, match="hand in a module that returns its scores"):
        attribute(_Dict(), x, 0, "saliency")


class _Dict(nn.Module):
    def forward(self, x):
        return {"logits": x.mean((2, 3))}


def test_without_captum_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(MissingExtraError, match=r"deep-feature-factorization\[attributions\]"):
        attribute(seeded(ConvNet), signed(1, 3, 16, 16), 0, "saliency")


def test_nan_is_one_line():
    model = seeded(ConvNet)
    with untouched(model), pytest.raises(ModelError, match="NaN"):
        attribute(model, signed(1, 3, 16, 16) * float("nan"), 0, "saliency")

    class Root(nn.Module):
        def forward(self, x):
            return (0 * x).sqrt().sum((2, 3))

    with pytest.raises(ModelError, match=r"the map by saliency holds NaN"):
        attribute(Root(), signed(1, 3, 16, 16), 0, "saliency")


class Failing(ConvNet):
    """Fails from its second run on, or as soon as too much runs at a time."""

    def __init__(self, error: BaseException, most: int = 0) -> None:
        super().__init__()
        self.error, self.most = error, most
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        if len(x) > self.most if self.most else self.runs > 1:
            raise self.error
        return super().forward(x)


@pytest.mark.parametrize("name", ["deeplift", "occlusion", "integrated-gradients", "layer-gradcam"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [(RuntimeError("boom"), ModelError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_model_that_fails_gets_itself_back(name, error, expected):
    model = seeded(Failing, error).train()
    with untouched(model), pytest.raises(expected):
        attribute(model, signed(1, 3, 16, 16), 0, name, layer="layer4")


def test_fewer_run_at_a_time_where_memory_runs_out():
    x, model = signed(1, 3, 16, 16), seeded(ConvNet)
    tight = seeded(Failing, RuntimeError("CUDA out of memory"), 3)
    with pytest.warns(RuntimeWarning, match="going on with 2 at a time"):
        found = attribute(tight, x, 0, settings={"n_steps": 6}, batch=4)
    assert torch.allclose(
        found.values, attribute(model, x, 0, settings={"n_steps": 6}).values, atol=1e-6
    )


def test_names_are_read_generously():
    assert attribution_method("Integrated_Gradients") is METHODS["integrated-gradients"]

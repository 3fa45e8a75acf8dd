import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import dff
from dff.concepts import factorize
from dff.demo import creatures
from dff.errors import BankError, FactorizationError, LayerError, ModelError, UsageError
from dff.explain.one_pass import one_pass
from dff.maps import Grid
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25)


@pytest.fixture
def photo():
    """Two coloured fields on grey, 72 x 40."""
    pixels = np.full((40, 72, 3), 90, np.uint8)
    pixels[4:18, 4:20] = (250, 20, 10)
    pixels[22:38, 48:66] = (10, 30, 250)
    return pixels


def explainer(kind=ConvNet, **kwargs):
    return dff.Explainer(seeded(kind), preprocessing=PREP, **kwargs)


def test_one_forward_pass_gives_everything(photo):
    ready = explainer()
    runs = []
    handle = ready.model.register_forward_hook(lambda *_: runs.append(1))
    with untouched(ready.model):
        result = ready(photo, concepts=3)
        result.cam(1), result.cam(2), result.overlay(), result.panel()
    handle.remove()
    assert len(runs) == 1
    x = PREP.to_tensor(dff.read_image(photo))[None]
    torch.testing.assert_close(result.logits, ready.model(x).detach())
    assert result.photos[0].coefficients.shape == (3, 8, 8 + (x.shape[3] - 32) // 4)
    assert result.scores.shape == (3, 5)
    torch.testing.assert_close(result.scores.sum(1), torch.ones(3))


def test_concepts_are_scored_at_full_presence(photo):
    ready = explainer()
    result = ready(photo, concepts=3)
    with torch.no_grad():
        expected = ready.model.fc(result.bank.at_full_presence)
    torch.testing.assert_close(result.concept_logits, expected)


def test_scores_do_not_depend_on_the_scale_of_the_factorization():
    model, x = seeded(ConvNet), images(1, 3, 32, 32)

    def scaled(by):
        def fit(rows):
            bank, coefficients = factorize(rows, 3)
            factors = torch.tensor(by)
            return dataclasses.replace(
                bank, components=bank.components * factors[:, None], scale=bank.scale / factors
            ), coefficients / factors

        return one_pass(model, "layer4", [x], fit).concept_logits

    torch.testing.assert_close(scaled([1.0, 1.0, 1.0]), scaled([10.0, 0.3, 7.0]))


@pytest.mark.parametrize("shape", [(37, 53), (53, 37), (33, 33)])
def test_heatmaps_land_on_the_original_pixels(shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[:, :, 2] = 40
    pixels[5:14, 20:31, 0] = 255
    ready = dff.Explainer(seeded(PixelNet), preprocessing=_Exact(size=min(shape), mean=0, std=1))
    result = ready(pixels, concepts=2)
    heatmaps = result.heatmaps()
    assert heatmaps.shape == (2, *shape)
    red = heatmaps[int(result.bank.components[:, 0].argmax())]
    expected = np.zeros(shape, bool)
    expected[5:14, 20:31] = True
    assert ((red > 0.5) == expected).all()


def test_masks_show_where_a_concept_is_and_that_it_is_absent():
    red, empty = np.zeros((48, 48, 3), np.uint8), np.zeros((48, 48, 3), np.uint8)
    red[8:24, 12:36, 0] = 255
    empty[..., 1] = 20
    prep = dff.Preprocessing(size=32, mean=0, std=1)
    result = dff.Explainer(seeded(PixelNet), preprocessing=prep)([red, empty], concepts=2)
    k = int(result.bank.components[:, 0].argmax())
    expected = np.zeros((48, 48), bool)
    expected[8:24, 12:36] = True
    mask = result.masks()[k]
    assert (mask & expected).sum() / (mask | expected).sum() > 0.85
    assert not result[1].masks()[k].any()
    assert result[1].masks()[1 - k].all()


class _Exact(dff.Preprocessing):
    """The photo at its own size."""

    def input_size(self, height, width):
        return height, width


def test_anchored_grids_put_the_heatmap_over_the_object():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("a", nn.Conv2d(3, 6, 3, stride=2, padding=1))
        model.add_module("b", nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, padding=1)))
        model.add_module("c", nn.Sequential(nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1)))
        model.add_module("layer4", nn.ReLU())
        model.add_module("head", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        model.add_module("fc", nn.Linear(8, 4))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.uniform_(module.weight, 0, 0.2)
                nn.init.zeros_(module.bias)
    prep = dff.Preprocessing(size=64, mean=0, std=1)
    ready = dff.Explainer(model.eval(), preprocessing=prep)
    assert ready.layer == "layer4"
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[20:29, 36:45] = 255  # centred at (24.5, 40.5): the centre of cell (3, 5)
    heatmap = ready(pixels, concepts=1).heatmaps()[0]
    weights = heatmap / heatmap.sum()
    centre = [(weights.sum(1 - axis) * (np.arange(64) + 0.5)).sum() for axis in (0, 1)]
    assert centre == pytest.approx([24.5, 40.5], abs=1.0)


def test_a_batch_shares_concepts_and_keeps_absence(photo):
    empty = np.full((40, 48, 3), 90, np.uint8)
    red = empty.copy()
    red[8:30, 10:30] = (250, 20, 10)
    ready = dff.Explainer(seeded(PixelNet), preprocessing=dff.Preprocessing(size=32, mean=0, std=1))
    result = ready([red, empty], concepts=2)
    assert len(result) == 2
    k = int(result.bank.components[:, 0].argmax())
    assert result[0].maps()[k].max() > 0.9
    assert result[1].maps()[k].max() < 0.1
    assert [len(one) for one in result] == [1, 1]
    np.testing.assert_array_equal(result[-1].maps(), result[1].maps())
    np.testing.assert_array_equal([*result][1].maps(), result[1].maps())
    assert (result[1].maps() != result.maps()).any()


def test_photos_of_different_sizes_share_concepts(photo):
    ready = explainer()
    tall = np.ascontiguousarray(photo.transpose(1, 0, 2)[:, ::-1])
    result = ready([photo, tall, photo[:, :40]], concepts=3)
    shapes = [tuple(photo.coefficients.shape) for photo in result.photos]
    assert len(set(shapes)) >= 2
    for i, one in enumerate((photo, tall, photo[:, :40])):
        assert result[i].heatmaps().shape == (3, *one.shape[:2])
        alone = PREP.to_tensor(dff.read_image(one))[None]
        torch.testing.assert_close(result.logits[i], ready.model(alone)[0].detach())
        cam = result[i].cam(2)
        assert cam.shape == one.shape[:2]


def test_cam_equals_gradcam_alone(photo):
    from gradcam import GradCAM

    ready = explainer()
    x = PREP.to_tensor(dff.read_image(photo))[None]
    result = ready(x, concepts=2)
    alone = GradCAM(ready.model, ready.layer)(x, [3])[0]
    tiled = Grid.tiled(*result.photos[0].grid.shape, *x.shape[2:])
    photo = dataclasses.replace(result.photos[0], layer_grid=tiled)
    np.testing.assert_allclose(photo.cam(3), alone, atol=1e-5)
    with pytest.raises(UsageError, match="cam=True"):
        ready(x, concepts=2, cam=False).cam()


def test_tensors_are_explained_and_shown(photo):
    ready = explainer()
    x = PREP.to_tensor(dff.read_image(photo))
    kept = x.clone()
    result = ready(x[None], concepts=2)
    assert torch.equal(x, kept)
    assert result.photos[0].picture.pixels.shape == (*x.shape[1:], 3)
    torch.testing.assert_close(result.logits, ready(photo, concepts=2).logits)
    with pytest.raises(UsageError, match=r"expected a tensor \(3, height, width\)"):
        ready(torch.zeros(2, 32, 32))


def test_results_repeat_exactly(photo):
    first, second = explainer()(photo, concepts=3), explainer()(photo, concepts=3)
    assert torch.equal(first.bank.components, second.bank.components)
    assert torch.equal(first.photos[0].coefficients, second.photos[0].coefficients)
    assert first.bank.shares.diff().max() <= 0, "largest share first"


def test_a_photo_in_a_bank_of_concepts(photo, tmp_path):
    ready = explainer()
    fitted = ready(photo, concepts=3)
    path = fitted.bank.save(tmp_path / "bank.safetensors")
    bank = dff.ConceptBank.load(path)
    again = ready(photo, bank=bank)
    assert torch.equal(again.bank.components, fitted.bank.components)
    np.testing.assert_allclose(again.maps(), fitted.maps(), atol=0.02)
    with pytest.raises(BankError, match="layer 'layer4'"):
        explainer(layer="stem")(photo, bank=bank)


@pytest.mark.parametrize("kind", [TokenNet, lambda: ConvNet(relu=False)])
def test_signed_activations(kind, photo):
    ready = dff.Explainer(
        seeded(kind), preprocessing=dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)
    )
    with untouched(ready.model):
        result = ready(photo, concepts=3)
        assert result.cam().max() <= 1
    assert result.bank.signed
    assert (result.bank.components < 0).any()
    assert result.photos[0].coefficients.min() >= 0


def test_a_model_that_takes_squares_only_gets_the_whole_photo_squashed(photo):
    model = seeded(TokenNet)
    ready = dff.Explainer(model, preprocessing=PREP)
    result = ready(photo, concepts=2)
    assert ready.preprocessing.fixed
    assert result.photos[0].coefficients.shape == (2, 4, 4)
    assert result.heatmaps().shape == (2, 40, 72)


def test_a_model_that_refuses_appended_items_gets_a_second_pass(photo):
    class Strict(ConvNet):
        def forward(self, x):
            self_batch = len(x)
            x = self.layer4(self.stem(x))
            if len(x) != self_batch:
                raise RuntimeError("shape")
            return self.fc(x.mean((2, 3)))

    ready = explainer(Strict)
    result = ready(photo, concepts=3)
    with torch.no_grad():
        torch.testing.assert_close(
            result.concept_logits, ready.model.fc(result.bank.at_full_presence)
        )
    assert result.cam(0).shape == (40, 72)


def test_saving_writes_everything(photo, tmp_path):
    result = explainer(class_names=list("abcde"))([photo, photo], concepts=2)
    paths = result.save(tmp_path / "out", target="c")
    assert {p.name for p in paths} == {p.name for p in (tmp_path / "out").glob("[!.]*")}
    report = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert report["images"][0]["files"] == ["image_concepts.png", "image_panel.png"]
    assert report["images"][1]["files"] == ["image-2_concepts.png", "image-2_panel.png"]
    assert report["concepts"][0]["top_classes"][0]["name"] in "abcde"
    arrays = load_file(tmp_path / "out" / "arrays.safetensors")
    assert torch.equal(arrays["coefficients.1"], result.photos[1].coefficients)
    for path in paths:
        if path.suffix == ".png":
            Image.open(path).verify()
    only = result.save(tmp_path / "json", formats=["json"])
    assert [p.name for p in only] == ["explanation.json"]
    with pytest.raises(UsageError, match="no format 'gif'"):
        result.save(tmp_path / "json", formats=["gif"])
    with pytest.raises(UsageError, match="no class 'x'"):
        result.save(tmp_path / "none", target="x")
    assert not (tmp_path / "none").exists()


def test_pictures_of_big_photos_are_reduced():
    wide = np.zeros((20, 4000, 3), np.uint8)
    result = dff.Explainer(seeded(ConvNet), preprocessing=PREP)(wide + 60, concepts=1)
    assert result.overlay(with_legend=False).size == (2048, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: nn.init.constant_(m.layer4[0].weight, float("nan")), "NaN or infinite"),
        (lambda m: nn.init.constant_(m.layer4[1].bias, -1e9), "all zero"),
    ],
)
def test_activations_that_cannot_be_factorized(change, message, photo):
    ready = explainer()
    change(ready.model)
    with pytest.raises(FactorizationError, match=message):
        ready(photo)


def test_wrong_arguments(photo):
    ready = explainer()
    with pytest.raises(UsageError, match="from 1 on, not 0"):
        ready(photo, concepts=0)
    with pytest.raises(UsageError, match=r"128 cells x 12 channels here: at most 12"):
        ready(photo, concepts=13)
    with pytest.raises(UsageError, match="list is empty"):
        ready([])
    with pytest.raises(LayerError, match="did you mean 'layer4'"):
        explainer(layer="layer_4")
    with pytest.raises(UsageError, match="move your module yourself"):
        explainer(device="cpu")
    with pytest.raises(UsageError, match="class 7 does not exist"):
        ready(photo).cam(7)
    with pytest.raises(UsageError, match="no class names"):
        ready(photo).cam("cat")


def test_a_model_that_fails_says_so():
    class Picky(ConvNet):
        def forward(self, x):
            raise RuntimeError("I take nothing")

    with pytest.raises(ModelError, match=r"failed on an input of shape.*I take nothing"):
        explainer(Picky)


def test_the_model_is_given_back_after_an_interrupt(photo):
    ready = explainer()
    ready.model.train()
    with untouched(ready.model), pytest.raises(KeyboardInterrupt):
        one_pass(ready.model, "layer4", [images(1, 3, 32, 32)], _interrupt)


def _interrupt(rows):
    raise KeyboardInterrupt


def test_shares_are_those_of_the_photo_whatever_bank_it_is_in():
    """In its own concepts they are the bank's; in those of others, what is absent has none."""
    explainer = dff.Explainer("demo")
    fox, deer = (creatures.render(seed, species=s).image for seed, s in ((1, "fox"), (2, "stag")))
    own = explainer(fox, concepts=4)
    torch.testing.assert_close(own.photos[0].shares, own.bank.shares, atol=2e-3, rtol=0)
    both = explainer([fox, deer], concepts=4)
    each = torch.stack([photo.shares for photo in both.photos])
    torch.testing.assert_close(each.mean(0), both.bank.shares, atol=2e-3, rtol=0)
    again = explainer(fox, bank=both.bank).photos[0]
    torch.testing.assert_close(again.shares, each[0], atol=5e-3, rtol=0)
    assert float(again.shares.sum()) <= 1

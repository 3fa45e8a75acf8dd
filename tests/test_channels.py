"""Images of one, two, three, four and more channels, from the array to the picture."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dff
from dff.errors import DFFError, ImageError, ModelError, UsageError
from dff.images import IMAGENET_MEAN, IMAGENET_STD, read_image
from dff.images.bands import channels_of
from dff.models import describe
from dff.models.loaded import input_channels
from tests.toys import images, seeded

RNG = np.random.default_rng(0)


class Net(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(channels, 12, 3, stride=4, padding=1), nn.ReLU())
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.layer(x).mean((2, 3)))


def array(channels: int, dtype=np.uint8, height: int = 48, width: int = 40) -> np.ndarray:
    values = RNG.random((height, width, channels))
    if dtype == np.uint8:
        return (values * 255).astype(np.uint8)
    return (values * 65535).astype(np.uint16) if dtype == np.uint16 else values.astype(dtype)


def explainer_of(channels: int) -> dff.Explainer:
    prep = dff.Preprocessing(size=32, mean=0.5, std=0.25)
    return dff.Explainer(seeded(Net, channels), preprocessing=prep)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_arrays_of_any_channels_are_explained(channels, dtype):
    explainer = explainer_of(channels)
    assert explainer.preprocessing.channels == channels
    result = explainer([array(channels, dtype), array(channels, dtype)], concepts=3)
    assert result.photos[0].image.shape[0] == channels
    assert result.overlay().size[1] >= 48
    for kind in ("contributions", "ablation", "blur", "sobol", "gradient"):
        assert result.evidence(kind).values.isfinite().all()
    assert np.isfinite(result.check().deletion.auc)
    assert result.cam().shape == (48, 40)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_tensors_of_any_channels_are_explained(channels):
    explainer = explainer_of(channels)
    x = images(2, channels, 32, 32)
    result = explainer(x, concepts=2)
    torch.testing.assert_close(result.logits, explainer.model(x).detach())
    assert result.photos[1].picture.pixels.shape == (32, 32, 3)
    assert explainer(x[0], concepts=2).photos[0].picture.name == "image0"


def test_the_input_is_the_array_to_its_full_precision():
    explainer, values = explainer_of(7), array(7, np.uint16, 32, 32)
    result = explainer(values, concepts=2)
    expected = torch.from_numpy((values / 65535 - 0.5) / 0.25).permute(2, 0, 1).float()
    torch.testing.assert_close(result.photos[0].image, expected, rtol=0, atol=1e-5)


def test_sixteen_bits_of_one_channel_reach_a_model_of_one(tmp_path):
    values = array(1, np.uint16, 32, 32)
    Image.fromarray(values[..., 0]).save(tmp_path / "x.png")
    result = explainer_of(1)(tmp_path / "x.png", concepts=2)
    expected = torch.from_numpy((values[..., 0] / 65535 - 0.5) / 0.25)[None].float()
    torch.testing.assert_close(result.photos[0].image, expected, rtol=0, atol=1e-5)


def test_photos_reach_a_model_of_one_channel_by_luminance():
    photo = array(3, np.uint8, 32, 32)
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    result = explainer_of(1)(photo, concepts=2)
    levels = result.photos[0].image[0] * 0.25 + 0.5
    assert np.abs(levels.numpy() * 255 - grey).max() < 1e-3
    assert np.array_equal(result.photos[0].picture.pixels, photo)


def test_transparent_images_reach_a_model_of_four_channels(tmp_path):
    values = array(4, np.uint8, 32, 32)
    Image.fromarray(values).save(tmp_path / "x.png")
    for source in (values, tmp_path / "x.png", Image.fromarray(values)):
        image = explainer_of(4)(source, concepts=2).photos[0].image
        levels = ((image * 0.25 + 0.5) * 255).permute(1, 2, 0).numpy()
        assert np.abs(levels - values).max() < 1e-2
    over_white = explainer_of(3)(values, concepts=2).photos[0]
    assert over_white.image.shape[0] == 3


def test_arrays_are_read_from_files(tmp_path):
    values = array(7, np.float32)
    np.save(tmp_path / "scene.npy", values)
    picture = read_image(tmp_path / "scene.npy")
    assert picture.name == "scene"
    np.testing.assert_allclose(picture.bands, values * 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((4, 4), dtype=object), "Python objects"),
        (np.zeros((4,), np.uint8), "the shape"),
        (np.zeros((5, 5, 2000), np.uint8), "1 to 1024 channels"),
        (np.full((4, 4), 7.0), r"lies in \[0, 1\]"),
    ],
)
def test_files_of_arrays_that_are_no_images(content, message, tmp_path):
    np.save(tmp_path / "x.npy", content, allow_pickle=True)
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "x.npy")


def test_a_cut_file_of_an_array(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((64, 64), np.uint8))
    data = (tmp_path / "x.npy").read_bytes()
    for length in (6, 7, 60, 200):
        with pytest.raises(ImageError, match="cannot read"):
            read_image(data[:length])


def test_a_header_that_promises_too_much_allocates_nothing():
    import io

    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ImageError, match="over the limit"):
        read_image(file.getvalue())


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        (1, ""),
        (2, "channel 1 of 2 in grey, from percentile 2 to 98"),
        (3, ""),
        (4, "channels 1, 2, 3 of 4 as red, green, blue, over white where the fourth is low"),
        (7, "channels 1, 2, 3 of 7 as red, green, blue, each from percentile 2 to 98"),
    ],
)
def test_what_is_shown_is_said(channels, said):
    picture = read_image(array(channels))
    assert picture.shown == said
    assert picture.pixels.shape == (48, 40, 3)


def test_false_colours_stretch_dark_bands():
    dark = (array(7, np.float32) * 0.01).astype(np.float32)
    dark[..., 1] = 0.005  # constant
    pixels = read_image(dark).pixels
    assert pixels[..., 0].min() == 0
    assert pixels[..., 0].max() == 255
    assert (pixels[..., 1] == pixels[0, 0, 1]).all()


@pytest.mark.parametrize(
    ("channels", "image", "message"),
    [
        (7, array(3), r"images of 7 channels, and 'image' has 3 \(a photo\) on 48 x 40.*width, 7"),
        (4, array(3), r"an image with transparency \(RGBA\)"),
        (3, array(7), "images of 3 channels, and 'image' has 7"),
        (1, array(2), "images of 1 channel, and 'image' has 2"),
        (7, array(32, np.uint8, 7, 40), "channels come last"),
    ],
)
def test_another_number_of_channels_is_said(channels, image, message):
    with pytest.raises(ImageError, match=message):
        explainer_of(channels)(image, concepts=2)


def test_tensors_of_another_number_of_channels():
    with pytest.raises(UsageError, match=r"\(n, 7, height, width\), got \(2, 3, 32, 32\)"):
        explainer_of(7)(images(2, 3, 32, 32), concepts=2)


def test_the_models_first_convolution_says_how_many():
    assert describe(Net(1)).preprocessing.channels == 1
    own = describe(Net(7)).preprocessing
    assert own.mean == pytest.approx([sum(IMAGENET_MEAN) / 3] * 7)
    assert own.std == pytest.approx([sum(IMAGENET_STD) / 3] * 7)
    assert describe(Net(3)).preprocessing.mean == IMAGENET_MEAN
    assert input_channels(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1))) == 3
    assert input_channels(nn.Linear(4, 4)) == 3


def test_timm_and_hugging_face_models_of_one_channel():
    timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
    loaded = describe(timm.create_model("resnet18", in_chans=1))
    assert loaded.preprocessing.mean == pytest.approx([sum(IMAGENET_MEAN) / 3])
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config = transformers.ViTConfig(num_channels=5, **sizes)
    assert describe(transformers.ViTForImageClassification(config)).preprocessing.channels == 5


def test_numbers_stand_for_channels():
    prep = dff.Preprocessing
    assert prep(mean=0.5, std=0.5).mean == (0.5,) * 3
    assert prep(mean=(0.1, 0.2), std=0.5).std == (0.5, 0.5)
    assert prep(mean=(0.1,), std=(0.3,)).channels == 1
    assert prep(mean=0.5, std=[0.1] * 13).channels == 13
    assert prep(mean=0.13, std=0.3).for_channels(1).mean == (0.13,)
    assert prep(size=64).is_general
    assert not prep(mean=(0.1, 0.2, 0.3), std=0.5).is_general


def test_numbers_of_other_channels_than_the_models():
    prep = dff.Preprocessing(size=32, mean=(0.1, 0.2, 0.3), std=0.5)
    with pytest.raises(ModelError, match="takes images of 7 channels, and was handed 3"):
        dff.Explainer(seeded(Net, 7), preprocessing=prep)


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_normalised_levels_come_back(channels):
    prep = dff.Preprocessing(size=32, mean=0.3, std=0.2).for_channels(channels)
    picture = read_image(array(channels, np.uint8, 32, 32))
    levels = channels_of(picture, channels)
    np.testing.assert_array_equal(prep.to_pixels(prep.to_tensor(picture)), levels)


def test_datasets_of_many_channels(tmp_path):
    explainer = explainer_of(7)
    (tmp_path / "in").mkdir()
    scenes = [array(7, np.uint16 if i % 2 else np.uint8) for i in range(4)]
    run = dff.colocalize([(scene, 0) for scene in scenes], tmp_path / "out", model=explainer,
                         concepts=2)  # fmt: skip
    table = run.table("images")
    assert table["error"].null_count == 4


def test_datasets_of_photos_for_a_model_of_one_channel(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(array(3)).save(tmp_path / f"in/{i}.png")
    run = dff.colocalize(tmp_path / "in", tmp_path / "out", model=explainer_of(1), concepts=2)
    assert run.table("images")["error"].null_count == 3
    with pytest.raises(DFFError, match="7 channels"):
        dff.colocalize(tmp_path / "in", tmp_path / "else", model=explainer_of(7), concepts=2)

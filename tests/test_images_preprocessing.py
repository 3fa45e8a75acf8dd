"""From photos to model input: sizes, values, and torchvision as the reference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from dff.errors import UsageError
from dff.images import IMAGENET_MEAN, IMAGENET_STD, Picture, Preprocessing, read_image

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def photo(height: int, width: int, seed: int = 0) -> Picture:
    """A picture with structure at every scale down to a few pixels, like photos have."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (4, 16, 64):
        noise = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer) / 3
    return Picture(total.astype(np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (224, 224, 224, (224, 224)),
        (480, 640, 224, (224, 288)),  # 298.7 is nearest 288
        (640, 480, 224, (288, 224)),
        (1200, 1600, 225, (225, 289)),  # 32n + 1 stays 32n + 1
        (100, 107, 224, (224, 224)),
        (100, 108, 224, (224, 256)),
        (32, 8000, 224, (224, 896)),  # four times, and no more
        (8000, 32, 225, (897, 225)),
        (1, 1, 10, (10, 10)),
        (10, 1000, 10, (10, 10)),  # 10 + 32 would exceed four times 10
    ],
)
def test_input_sizes(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    assert Preprocessing(size=size).input_size(height, width) == expected
    assert Preprocessing(size=size, fixed=True).input_size(height, width) == (size, size)


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(32, 600))
def test_sizes_keep_the_aspect_ratio_as_well_as_steps_allow(
    height: int, width: int, size: int
) -> None:
    preprocessing = Preprocessing(size=size)
    rows, cols = preprocessing.input_size(height, width)
    assert preprocessing.input_size(width, height) == (cols, rows)
    short, long = sorted((rows, cols))
    assert short == size
    assert (long - size) % 32 == 0
    assert long <= 4 * size
    if max(height, width) <= 3.5 * min(height, width):
        assert abs(long - size * max(height, width) / min(height, width)) <= 16 + 1e-6
    if rows != cols:
        assert (rows > cols) == (height > width)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(224, 224), (100, 130), (333, 700), (1500, 1100)])
def test_values_match_torchvision(shape: tuple[int, int], interpolation: str) -> None:
    picture = photo(*shape)
    preprocessing = Preprocessing(interpolation=interpolation)  # type: ignore[arg-type]
    tensor = preprocessing.to_tensor(picture)
    resized = functional.resize(
        Image.fromarray(picture.pixels), tensor.shape[1:], InterpolationMode(interpolation)
    )
    reference = functional.normalize(functional.to_tensor(resized), IMAGENET_MEAN, IMAGENET_STD)
    assert tensor.dtype == torch.float32
    assert tensor[None].is_contiguous(memory_format=torch.channels_last)
    assert tuple(tensor.shape) == (3, *preprocessing.input_size(*shape))
    levels = (tensor - reference).abs() * torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255
    assert levels.max() < 2.1
    assert levels.mean() < 0.3


def test_real_photos_match_torchvision_to_a_level() -> None:
    folder = SHARED / "data" / "photos"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/photos")
    for name in ("horses.jpg", "zebra.jpg", "dog_cat.jfif"):
        picture = read_image(folder / name)
        tensor = Preprocessing(mean=0, std=1).to_tensor(picture)
        resized = functional.resize(Image.fromarray(picture.pixels), tensor.shape[1:])
        assert (tensor - functional.to_tensor(resized)).abs().max() * 255 < 1.1


def test_normalisation_by_hand() -> None:
    picture = Picture(np.full((4, 4, 3), (255, 0, 51), np.uint8))
    tensor = Preprocessing(size=4, mean=0.5, std=[0.5, 0.25, 0.1]).to_tensor(picture)
    expected = torch.tensor([1.0, -2.0, -3.0]).view(3, 1, 1).expand(3, 4, 4)
    torch.testing.assert_close(tensor, expected)


def test_the_whole_photo_is_seen() -> None:
    """Marks at the corners and edges of a wide photo stay at the corners of the input."""
    pixels = np.zeros((90, 300, 3), np.uint8)
    pixels[:30, :30], pixels[-30:, -30:] = (255, 0, 0), (0, 255, 0)
    for fixed in (False, True):
        tensor = Preprocessing(size=64, mean=0, std=1, fixed=fixed).to_tensor(Picture(pixels))
        assert tensor[0, 1, 1] == 1
        assert tensor[1, -2, -2] == 1
        assert tensor[:, 1, -2].abs().max() == 0


def test_read_only_memory_and_no_warnings(recwarn: pytest.WarningsRecorder) -> None:
    frozen = np.frombuffer(bytes(48), np.uint8).reshape(4, 4, 3)
    picture = Picture(frozen)
    assert Preprocessing(size=8).to_tensor(picture).shape == (3, 8, 8)
    tensor = Preprocessing(size=4).to_tensor(picture)
    tensor.zero_()
    assert not picture.pixels.flags.writeable
    assert not recwarn.list


def test_the_tensor_shares_nothing_with_the_picture() -> None:
    picture = photo(32, 32)
    before = picture.pixels.copy()
    Preprocessing(size=32, mean=0, std=1).to_tensor(picture).fill_(9)
    np.testing.assert_array_equal(picture.pixels, before)


def test_a_batch_is_normalised_as_each_of_it() -> None:
    levels = np.stack([photo(31, 47).pixels, photo(31, 47).pixels[::-1]])
    preprocessing = Preprocessing(size=31)
    batch = preprocessing.normalise(torch.from_numpy(levels))
    assert batch.dtype == torch.float32
    expected = (levels / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-6)
    for i, item in enumerate(levels):
        assert torch.equal(batch[i], preprocessing.normalise(torch.tensor(item[None]))[0])


def test_there_and_back() -> None:
    picture = photo(64, 64)
    preprocessing = Preprocessing(size=64)
    tensor = preprocessing.to_tensor(picture)
    np.testing.assert_array_equal(preprocessing.to_pixels(tensor), picture.pixels)
    with pytest.raises(UsageError, match=r"shape \(3, h, w\), not \(1, 3, 64, 64\)"):
        preprocessing.to_pixels(tensor[None])


def test_settings_are_values() -> None:
    one = Preprocessing(size=225, mean=0.5, std=0.5)
    assert one == Preprocessing(size=225, mean=(0.5, 0.5, 0.5), std=np.array([0.5] * 3))  # type: ignore[arg-type]
    assert hash(one) == hash(dataclasses.replace(one))
    assert dataclasses.replace(one, fixed=True).fixed
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "positive whole number of pixels, not 0"),
        ({"size": 2.5}, "not 2.5"),
        ({"size": True}, "not True"),
        (
            {"mean": (0.5, 0.5)},
            "mean and std have a number for each channel, or one for all: got 2 and 3",
        ),
        ({"mean": "grey"}, "mean is one number, or one for each channel, not 'grey'"),
        ({"mean": float("nan")}, "mean is one finite number"),
        ({"std": 0}, "std must be positive, not 0"),
        ({"std": (1, 1, -1)}, "std must be positive"),
        ({"interpolation": "nearest"}, "interpolation is one of .* not 'nearest'"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Preprocessing(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="positive sides, not 0 x 5"):
        Preprocessing().input_size(0, 5)

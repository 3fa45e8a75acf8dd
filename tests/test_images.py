"""Reading images: every kind of source and pixel, and every way in which it can fail."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dff.errors import DFFError, ImageError, UsageError
from dff.images import Picture, read_image

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth colour picture of uneven, odd sides, so that no two orientations look alike."""
    rows, cols = np.mgrid[0:31, 0:47]
    return np.stack([rows * 8, cols * 5, (rows + cols) * 3], axis=2).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size, without any content."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + crc + b"\0\0\0\0IDAT" + b"\0" * 4


def test_all_sources_agree(pixels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(encode(Image.fromarray(pixels), "PNG"))
    sources = [path, str(path), path.read_bytes(), bytearray(path.read_bytes())]
    sources += [Image.fromarray(pixels), pixels, pixels / 255, (pixels / 255).astype(np.float32)]
    for source in sources:
        np.testing.assert_array_equal(read_image(source).pixels, pixels)
    assert read_image(path).name == "cat"
    assert read_image(pixels).name == "image"
    with Image.open(path) as image:
        assert read_image(image).name == "cat"


def test_a_picture_passes_through(pixels: np.ndarray) -> None:
    picture = Picture(pixels, "mine")
    assert read_image(picture) is picture
    assert (picture.height, picture.width) == (31, 47)


def test_pixels_cannot_be_changed_and_are_a_copy(pixels: np.ndarray) -> None:
    before = pixels.copy()
    picture = read_image(pixels)
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0, 0] = 0
    pixels[:] = 7
    np.testing.assert_array_equal(picture.pixels, before)
    assert pixels.flags.writeable


@pytest.mark.parametrize("ending", [".jpg", ".jfif", ".txt", ""])
def test_the_content_counts_and_not_the_name(
    pixels: np.ndarray, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"photo{ending}"
    path.write_bytes(encode(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(read_image(path).pixels, pixels)


def test_unknown_kinds_of_source() -> None:
    with pytest.raises(UsageError, match=r"a path, an http\(s\) URL, .* not int"):
        read_image(3)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="only http and https"):
        read_image("ftp://example.org/cat.png")


def test_pictures_check_what_they_hold() -> None:
    with pytest.raises(UsageError, match="uint8 array, not float64"):
        Picture(np.zeros((4, 4, 3)))
    with pytest.raises(UsageError, match=r"\(height, width, 3\), not \(4, 4\)"):
        Picture(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(pixels: np.ndarray, orientation: int) -> None:
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(read_image(data).pixels, expected)
    assert (expected.shape[:2] == (47, 31)) == (orientation >= 5)


def test_orientation_six_is_a_quarter_turn_clockwise(pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(read_image(data).pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_modes_without_transparency_read_as_pillow_converts_them(
    pixels: np.ndarray, mode: str
) -> None:
    image = Image.fromarray(pixels).convert(mode)
    np.testing.assert_array_equal(read_image(image).pixels, np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_keeps_its_colours(pixels: np.ndarray) -> None:
    data = encode(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95)
    difference = np.abs(read_image(data).pixels.astype(int) - pixels)
    assert difference.mean() < 4  # JPEG's own loss; inverted colours would differ by ~100


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_goes_over_white(pixels: np.ndarray, mode: str) -> None:
    image = Image.fromarray(pixels).convert("RGBA")
    alpha = np.zeros((31, 47), np.uint8)
    alpha[:, 20:] = 255
    image.putalpha(Image.fromarray(alpha))
    result = read_image(image.convert(mode)).pixels
    assert (result[:, :20] == 255).all()
    expected = np.asarray(image.convert(mode).convert("RGB"))
    np.testing.assert_array_equal(result[:, 20:], expected[:, 20:])


def test_half_transparent_black_is_mid_grey() -> None:
    array = np.zeros((4, 4, 4), np.uint8)
    array[..., 3] = 128
    assert np.abs(read_image(array).pixels.astype(int) - 127).max() <= 1


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    result = read_image(encode(image, "PNG", transparency=0)).pixels
    assert tuple(result[0, 0]) == (255, 255, 255)
    assert tuple(result[1, 1]) == (200, 10, 10)


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.round(levels / 257).astype(np.uint8)
    for source in (levels, Image.fromarray(levels), encode(Image.fromarray(levels), "PNG")):
        result = read_image(source).pixels
        np.testing.assert_array_equal(result, np.repeat(expected[..., None], 3, axis=2))
    tiff = encode(Image.fromarray(levels), "TIFF")
    np.testing.assert_array_equal(read_image(tiff).pixels[..., 1], expected)


def test_32_bit_levels() -> None:
    floats = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    result = read_image(encode(Image.fromarray(floats), "TIFF")).pixels
    np.testing.assert_array_equal(result[..., 0], np.floor(floats * 255 + 0.5))
    with pytest.raises(ImageError, match=r"lies in \[0, 1\], but came in \[0, 900\]"):
        read_image(Image.fromarray(floats * 900))
    with pytest.raises(ImageError, match=r"levels lie in \[-5, 0\]"):
        read_image(Image.fromarray(np.full((4, 4), -5, np.int32) * (floats > 0.5)))


def test_the_first_frame_of_an_animation() -> None:
    first, second = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(first, kind, save_all=True, append_images=[second], **options)
        assert tuple(read_image(data).pixels[4, 4]) == (255, 0, 0), kind


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3), (5, 6, 4)])
def test_array_shapes(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 255, np.uint8)
    assert read_image(array).pixels.shape == (5, 6, 3)
    assert (read_image(array).pixels == 255).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"not \(3, 8, 8\); channels come last"),
        (np.zeros((1, 8, 8, 3), np.uint8), "one image at a time"),
        (np.zeros(8, np.uint8), r"not \(8,\)"),
        (np.full((8, 8), 9.0), r"\[0, 1\], but came in \[9, 9\]; divide it by 255"),
        (np.full((8, 8), -2.0), r"came in \[-2, -2\]; rescale"),
        (np.full((8, 8), np.nan), "NaN or infinity"),
        (np.full((8, 8), np.inf), "NaN or infinity"),
        (np.zeros((8, 8), np.int64), "not int64; convert"),
        (np.zeros((8, 8), bool), "not bool"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_image(array)


def test_a_missing_file_names_the_close_ones(tmp_path: Path) -> None:
    (tmp_path / "elephant.jpg").touch()
    with pytest.raises(ImageError, match=r"no image .*elefant.jpg; did you mean 'elephant.jpg'\?"):
        read_image(tmp_path / "elefant.jpg")
    with pytest.raises(ImageError, match=r"folder .*nowhere does not exist"):
        read_image(tmp_path / "nowhere" / "a.jpg")
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "elephant.jpg" / "a.jpg")


def test_names_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="too long"):
        read_image("a" * 5000)
    with pytest.raises(ImageError, match="null"):
        read_image("a\0b")


def test_folders_pipes_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder; name an image in it"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty.jpg: it is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="the bytes given: it is empty"):
        read_image(b"")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(tmp_path / "pipe")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"cannot read .*secret.png: Permission denied"):
        read_image(path)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_truncated_jpeg_is_refused(pixels: np.ndarray, share: float, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", progressive=progressive)
    with pytest.raises(ImageError, match="it is truncated"):
        read_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000"])
def test_other_halves_of_images_are_refused(pixels: np.ndarray, kind: str) -> None:
    data = encode(Image.fromarray(pixels), kind)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        read_image(data[: len(data) // 2])


def test_damage_anywhere_never_escapes_as_another_error(pixels: np.ndarray) -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        data = np.frombuffer(encode(Image.fromarray(pixels), kind), np.uint8)
        for _ in range(40):
            damaged = data.copy()
            places = random.integers(0, min(len(data), 400), 6)
            damaged[places] = random.integers(0, 256, 6)
            with contextlib.suppress(DFFError):
                assert read_image(damaged.tobytes(), max_pixels=10**6).pixels.ndim == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just some words\n", "it is text, not an image"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (bytes(range(256)), "not an image in a format that Pillow knows"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"holiday.jpg: .*{message}"):
        read_image(path)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1)])
def test_images_of_one_pixel_a_side_are_refused(height: int, width: int) -> None:
    image = Image.new("RGB", (width, height))
    message = f"{width} x {height} pixels, but an image needs at least 2 x 2"
    for source in (image, encode(image, "PNG"), np.asarray(image)):
        with pytest.raises(ImageError, match=message):
            read_image(source)


def test_images_without_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="0 x 0 pixels"):
        read_image(np.zeros((0, 0, 3), np.uint8))
    with pytest.raises(ImageError):
        read_image(png_header(0, 0))
    assert read_image(np.zeros((2, 2), np.uint8)).pixels.shape == (2, 2, 3)


def test_large_images_are_refused_from_their_header() -> None:
    for width in (10_001, 20_000, 50_000):  # over ours; over Pillow's; far over
        with pytest.raises(ImageError, match=r"megapixels or more, over the limit of 100"):
            read_image(png_header(width, 10_000))
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        read_image(png_header(9_500, 10_000))  # within the limit, so its content is looked at
    with pytest.raises(ImageError, match=r"PIL\.Image\.MAX_IMAGE_PIXELS"):
        read_image(png_header(20_000, 10_000), max_pixels=10**9)


def test_the_pixel_limit_holds_for_all_sources(pixels: np.ndarray) -> None:
    for source in (pixels, Image.fromarray(pixels), encode(Image.fromarray(pixels), "PNG")):
        with pytest.raises(ImageError, match="over the limit"):
            read_image(source, max_pixels=31 * 47 - 1)
        assert read_image(source, max_pixels=31 * 47).height == 31


def test_reading_leaves_pillow_images_as_they_are(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels).convert("RGBA")
    exif = image.getexif()
    exif[0x0112] = 6
    before = (image.size, image.mode, image.tobytes(), dict(image.getexif()))
    assert read_image(image).pixels.shape == (47, 31, 3)
    assert (image.size, image.mode, image.tobytes(), dict(image.getexif())) == before


def test_a_photo_of_an_odd_name() -> None:
    path = SHARED / "data" / "photos" / "dog_cat.jfif"
    if not path.exists():
        pytest.skip("needs ../shared/data/photos")
    picture = read_image(path)
    assert picture.name == "dog_cat"
    assert picture.pixels.shape == (177, 284, 3)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("least", "divisor"), [(1, 8), (40, 8), (41, 4), (80, 4), (300, 1)])
def test_jpeg_is_read_no_larger_than_needed(least: int, divisor: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = np.linspace(0, 255, 320 * 480).reshape(320, 480).astype(np.uint8)
    data = encode(Image.fromarray(levels).convert("RGB"), "JPEG", exif=exif)
    whole, reduced = read_image(data), read_image(data, least=least)
    assert whole.full_size == reduced.full_size == (whole.height, whole.width)
    assert (reduced.height, reduced.width) == (whole.height // divisor, whole.width // divisor)
    with pytest.raises(ImageError, match="over the limit"):
        read_image(data, least=least, max_pixels=320 * 480 - 1)


def test_what_has_no_smaller_version_comes_whole(pixels: np.ndarray) -> None:
    data = encode(Image.fromarray(pixels), "PNG")
    for source in (data, pixels, Image.fromarray(pixels)):
        picture = read_image(source, least=4)
        np.testing.assert_array_equal(picture.pixels, pixels)
        assert picture.full_size == pixels.shape[:2]


def test_opened_files_are_read(pixels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(encode(Image.fromarray(pixels), "PNG"))
    with path.open("rb") as file:
        picture = read_image(file)
    assert picture.name == "cat"
    np.testing.assert_array_equal(picture.pixels, pixels)
    path.write_bytes(b"none")
    with (
        path.open("rb") as file,
        pytest.raises(ImageError, match=f"cannot read {path}: it is text"),
    ):
        read_image(file)
    with path.open() as text, pytest.raises(UsageError, match="opened to read bytes"):
        read_image(text)  # type: ignore[arg-type]

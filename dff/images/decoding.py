"""From encoded bytes, Pillow images and arrays to upright pictures."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from PIL import Image, UnidentifiedImageError

from dff.errors import ImageError, UsageError
from dff.images.bands import MAX_CHANNELS, pictured
from dff.images.picture import Picture

__all__ = ["decode", "from_array", "from_pillow"]

MIN_SIDE = 2
NUMPY = b"\x93NUMPY"
ORIENTATION = 0x0112  # the EXIF tag

# How an image is turned upright, by its EXIF orientation; from 5 on its sides change places.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What a file that is no image turns out to be, by its first bytes in lower case.
LOOKALIKES = (
    ((b"<!doctype html", b"<html"), "it is an HTML page; name the image itself"),
    ((b"<svg", b"<?xml"), "it is XML or SVG; convert it to PNG first"),
    ((b"version https://git-lfs",), "it is a pointer of Git LFS; fetch it with 'git lfs pull'"),
    ((b"%pdf",), "it is a PDF; convert a page to PNG first"),
)


class _Quiet:
    """Keep Pillow's warnings of damage back: what matters of them is an error, or does not show.

    Filters of warnings belong to the whole process, so that threads share one change of them.
    """

    def __init__(self) -> None:
        self.lock, self.depth = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            self.depth += 1
            if self.depth == 1:
                self.kept = warnings.catch_warnings()
                self.kept.__enter__()
                # Of large images too: Pillow warns below and refuses above a limit of its own.
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                self.kept.__exit__(None, None, None)


_quiet = _Quiet()


def decode(file: BinaryIO, what: str, *, max_pixels: int, least: int | None = None) -> Picture:
    """Decode an image file.

    Args:
        file: the encoded image, readable and seekable, at its start.
        what: how messages call it, as a path or a URL.
        max_pixels: larger images are refused from their header alone.
        least: pixels that either side needs: a JPEG photo is decoded at a half, a quarter or an
            eighth of its sides where these are still no shorter; None is at its own size.

    Raises:
        ImageError: the file is empty, no image, broken, truncated, too large or too small.
    """
    head = file.read(512)
    if not head:
        raise ImageError(f"cannot read {what}: it is empty (0 bytes)")
    file.seek(0)
    if head.startswith(NUMPY):
        return _from_npy(file, what, max_pixels)
    try:
        with _quiet:
            image = Image.open(file)
    except Image.DecompressionBombError:
        raise _too_large(what, 2 * (Image.MAX_IMAGE_PIXELS or 0), max_pixels) from None
    except UnidentifiedImageError:
        raise ImageError(f"cannot read {what}: {_lookalike(head)}") from None
    except Exception as error:  # decoders raise whatever their parsers run into
        raise _broken(what, error) from None
    with image:
        height, width = image.height, image.width
        _check_size(what, height, width, max_pixels)
        if least is not None and image.format == "JPEG":
            image.draft("RGB", (max(least, MIN_SIDE),) * 2)
        picture = from_pillow(image, what, max_pixels=max_pixels)
        full_size = (width, height) if _orientation(image) > 4 else (height, width)
        return replace(picture, full_size=full_size)


def _from_npy(file: BinaryIO, what: str, max_pixels: int) -> Picture:
    """Read an array as NumPy saves it, after a look at its header; no pickled objects."""
    try:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.hasobject:
            raise UsageError("it holds Python objects, not numbers")
        check_shape(shape, max_pixels=max_pixels)
        file.seek(0)
        return from_array(npy.read_array(file, allow_pickle=False), max_pixels=max_pixels)
    except (ValueError, EOFError, OSError) as error:  # UsageError is one
        raise ImageError(f"cannot read {what}: {error}") from None


def from_pillow(image: Image.Image, what: str, *, max_pixels: int) -> Picture:
    """Return the picture of a Pillow image of any mode.

    The image itself is loaded if it was not yet, and otherwise left as it is.
    """
    _check_size(what, image.height, image.width, max_pixels)
    try:
        with _quiet:
            image.load()
            turn = TURNS.get(_orientation(image))
            return _picture(image if turn is None else image.transpose(turn))
    except ImageError as error:
        raise ImageError(f"cannot read {what}: {error}") from None
    except Exception as error:  # decoders raise whatever their parsers run into
        raise _broken(what, error) from None


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; where EXIF is damaged, the image is as it lies: 1."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        return int(orientation) if orientation in TURNS else 1
    except Exception:  # its parser raises whatever it runs into
        return 1


def from_array(array: np.ndarray, *, max_pixels: int) -> Picture:
    """Return the picture of an array.

    Args:
        array: (height, width) or (height, width, channels); uint8, uint16 over its whole
            range, or floating point in [0, 1]. Three channels are 8-bit RGB from here on; any
            other number keeps its precision.
        max_pixels: larger arrays are refused.

    Raises:
        UsageError: another shape, type or range.
        ImageError: too large or too small.
    """
    check_shape(array.shape, max_pixels=max_pixels)
    levels = _levels(array if array.ndim == 3 else array[..., None])
    return pictured(np.array(levels, order="C"))


def check_shape(shape: tuple[int, ...], *, max_pixels: int) -> None:
    """Raise unless an array has the shape of an image, as :func:`from_array` does."""
    turned = len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4
    if len(shape) not in (2, 3) or turned:
        hint = "; give one image at a time" if len(shape) == 4 else ""
        hint = "; channels come last: array.transpose(1, 2, 0)" if turned else hint
        raise UsageError(
            "an image array has the shape (height, width) or (height, width, channels), not "
            f"{shape}{hint}"
        )
    _check_size("the array", shape[0], shape[1], max_pixels)
    if len(shape) == 3 and not 0 < shape[2] <= MAX_CHANNELS:
        raise UsageError(f"an image has 1 to {MAX_CHANNELS} channels, not {shape[2]}")


def _levels(array: np.ndarray) -> np.ndarray:
    """Scale values of any accepted type to levels in [0, 255]: uint8 as it is, else float32."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return _from_16_bits(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(
            f"an image array is uint8, uint16, or floating point in [0, 1], not {array.dtype}; "
            "convert it with array.astype('uint8') if its values are 0 to 255"
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # written so that NaN fails
        hint = "divide it by 255" if low >= 0 and 1 < high <= 255 else "rescale it first"
        if not np.isfinite([low, high]).all():
            hint = "it holds NaN or infinity"
        raise UsageError(
            f"a floating point image lies in [0, 1], but came in [{low:.4g}, {high:.4g}]; {hint}"
        )
    return np.clip(array, 0, 1).astype(np.float32) * 255


def _picture(image: Image.Image) -> Picture:
    """Convert any mode."""
    mode = image.mode
    if mode.startswith("I"):  # I;16 and its byte orders; I holds 16-bit PNG in older Pillows
        return pictured(_from_16_bits(np.asarray(image))[..., None])
    if mode == "F":
        try:
            return pictured(_levels(np.asarray(image))[..., None])
        except UsageError as error:
            raise ImageError(str(error)) from None
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return pictured(np.array(image if mode == "RGBA" else image.convert("RGBA")))
    return Picture(np.array(image if image.mode == "RGB" else image.convert("RGB")))


def _from_16_bits(levels: np.ndarray) -> np.ndarray:
    """Scale 0..65535 to [0, 255], without rounding."""
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"its levels lie in [{low}, {high}], but 8-bit and 16-bit images are read; "
            "rescale them to 0..65535 first"
        )
    return levels.astype(np.float32) / 257


def _check_size(what: str, height: int, width: int, max_pixels: int) -> None:
    if height < MIN_SIDE or width < MIN_SIDE:
        raise ImageError(
            f"cannot use {what}: it is {width} x {height} pixels, "
            f"but an image needs at least {MIN_SIDE} x {MIN_SIDE}"
        )
    if height * width > max_pixels:
        raise _too_large(what, height * width, max_pixels)


def _too_large(what: str, pixels: int, max_pixels: int) -> ImageError:
    if pixels > max_pixels:
        return ImageError(
            f"cannot read {what}: it has {pixels / 1e6:.1f} megapixels or more, over the limit "
            f"of {max_pixels / 1e6:g}; make it smaller, or raise the limit"
        )
    return ImageError(
        f"cannot read {what}: it has over {pixels / 1e6:.0f} megapixels, Pillow's own limit; "
        "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS too"
    )


def _lookalike(head: bytes) -> str:
    """Say what a file is that Pillow does not recognise, as far as its first bytes tell."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for starts, meaning in LOOKALIKES:
        if text.startswith(starts):
            return meaning
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        return "it is a video or a HEIC photo; save it as JPEG or PNG first"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in head) and b"\xff" not in head:
        return "it is text, not an image"
    return "it is not an image in a format that Pillow knows, or its start is damaged"


def _broken(what: str, error: Exception) -> ImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in reason.lower() or isinstance(error, EOFError):
        return ImageError(f"cannot read {what}: it is truncated; fetch or copy it again, whole")
    return ImageError(f"cannot read {what}: it is damaged or unsupported ({reason})")

"""Hostile images by the thousand: pixels or a one-line error, and nothing else."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dff.cli import main
from dff.colocalization.sources.opening import open_dataset
from dff.colocalization.sources.reader import read_sample
from dff.errors import DFFError
from dff.images import Preprocessing, read_image
from tests.test_cli import FACTORY

LIMIT = 2_000_000


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, body: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = body or zlib.compress(bytes(min(height * (3 * width + 1), 100_000)))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def originals() -> list[bytes]:
    """Sound images of many kinds, and files that are hostile as they are."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    files = []
    for orientation in (3, 6, 8, 99):
        exif[0x0112] = orientation
        files.append(encoded(rgb, "JPEG", exif=exif.tobytes()))
    files.append(encoded(rgb, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40)))
    files += [encoded(rgb, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]
    files += [encoded(rgb.convert("CMYK"), kind) for kind in ("JPEG", "TIFF")]
    deep = Image.fromarray(rng.integers(0, 65536, (9, 8), dtype=np.uint16))
    files += [encoded(deep, "PNG"), encoded(deep, "TIFF"), encoded(rgb.convert("1"), "PNG")]
    files.append(encoded(rgb.convert("P"), "PNG", transparency=b"\0\x80\xff"))
    files.append(encoded(rgb.convert("F"), "TIFF"))
    frames = [rgb.rotate(angle) for angle in (90, 180)]
    files += [encoded(rgb, kind, save_all=True, append_images=frames) for kind in ("GIF", "WEBP")]
    files += [encoded(rgb, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_deflate")]
    files += [encoded(Image.new("RGB", size), "PNG") for size in ((1, 1), (65535, 1), (2, 9000))]
    bomb = zlib.compress(bytes(50_000_000), 9)
    files += [
        png(4, 4, chunk(b"iCCP", b"a\0\0" + bomb)),
        png(4, 4, chunk(b"zTXt", b"a\0\0" + bomb)),
    ]
    files += [png(2**31 - 1, 2**31 - 1), png(60000, 60000), png(900, 900, body=bomb), png(0, 9)]
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHIII", 2, 256, 3, 1, 9, 257, 3, 1, 9, 8)
    files += [loop, b"II*\0\x08\0\0\0\xff\xff" + bytes(99), b"II+\0\x08\0\0\0" + b"\xff" * 40]
    files += [b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(800), b"BM" + b"\xff" * 60]
    files += [
        b"P6 99999 99999 255\n",
        b"P5 -3 4 255\n",
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 40,
    ]
    files += [b"", b"\0", b"text", b"<svg xmlns='x'/>", b"<html>", b"%PDF-1.7", b"\xff\xd8\xff"]
    return files


def corpus(count: int) -> Iterator[bytes]:
    """Yield the originals, then damaged versions of them: cut, flipped, zeroed, shuffled."""
    rng, files = np.random.default_rng(1), originals()
    yield from files
    for number in range(count - len(files)):
        data = bytearray(files[int(rng.integers(len(files)))][:20_000])
        if data and number % 4 == 0:
            del data[int(rng.integers(len(data))) :]
        elif data and number % 4 == 1:
            for place in rng.integers(0, len(data), 1 + number % 7):
                data[place] ^= 1 << int(rng.integers(8))
        elif data and number % 4 == 2:
            start = int(rng.integers(len(data)))
            data[start : start + 64] = bytes(len(data[start : start + 64]))
        else:
            start = int(rng.integers(len(data) + 1))
            data[start:start] = rng.bytes(int(rng.integers(1, 40)))
        yield bytes(data)


def sound(message: str) -> bool:
    return len(message.splitlines()) == 1 and 0 < len(message) < 600 and "Traceback" not in message


@pytest.mark.slow
def test_pixels_or_a_one_line_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcomes, messages = [], []
    preprocessing = Preprocessing(size=16, fixed=True)
    (tmp_path / "photos").mkdir()
    for number, data in enumerate(corpus(2000)):
        (tmp_path / "photos" / f"{number:04}.jpg").write_bytes(data)  # often the wrong ending
    dataset = open_dataset(str(tmp_path / "photos"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index, path in enumerate(sorted((tmp_path / "photos").iterdir())):
            try:
                pixels = read_image(path, max_pixels=LIMIT).pixels
                assert pixels.dtype == np.uint8
                assert pixels.ndim == 3
                assert pixels.shape[2] == 3
                assert pixels.size <= 3 * LIMIT
                outcomes.append(True)
            except DFFError as error:
                messages.append(str(error))
                outcomes.append(False)
            sample = read_sample(dataset, index, preprocessing)
            if sample.error is None:
                assert sample.pixels is not None
                assert sample.pixels.shape == (16, 16, 3)
            else:
                assert sound(sample.error), sample.error
    assert [message for message in messages if not sound(message)] == []
    assert 0.2 < np.mean(outcomes) < 0.95
    printed = capfd.readouterr()
    # The TIFF library inside Pillow writes of its own, and nobody else does.
    assert printed.out == ""
    assert not any(word in printed.err for word in ("Warning", "warn(", ".py", "dff"))


@pytest.mark.slow
def test_the_command_line_takes_them_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(FACTORY)  # small: the images are what is tried
    monkeypatch.chdir(tmp_path)
    for number, data in enumerate(corpus(90)):
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        with pytest.raises(SystemExit) as ended:
            main(["analyze", str(path), "--model", "net.py:build", "--size", "32", "-q", "-k", "2",
                  "--format", "json", "-o", "out"])  # fmt: skip
        out, err = capfd.readouterr()
        assert ended.value.code in (0, 1), err
        assert out == ""
        assert len(err.splitlines()) == ended.value.code
        assert "unexpected" not in err

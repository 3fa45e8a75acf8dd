"""Datasets of every kind, and what is wrong with their images."""

from __future__ import annotations

import io
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import dff
from dff.colocalization import open_dataset
from dff.colocalization.sources.listed import FileDataset
from dff.colocalization.sources.reader import Reader, read_sample
from dff.colocalization.stages.network import Network
from dff.errors import RunError, UsageError
from dff.images import Preprocessing
from tests.colocalized import colocalize, photos, small_chunks, toy
from tests.toys import ConvNet, TokenNet, seeded

PREP = Preprocessing(size=32, fixed=True)


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    small_chunks(monkeypatch)


@pytest.fixture(scope="module")
def explainer():
    return toy()


def encoded(color=(200, 30, 30), size=(30, 20), kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_folder_is_listed_in_order_with_its_labels(tmp_path):
    for name in ("b/2.png", "b/10.png", "a/x/y.JPG", "top.png", "a/notes.txt", ".hidden/z.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded())
    found = open_dataset(tmp_path)
    assert list(found.paths) == ["a/x/y.JPG", "b/10.png", "b/2.png", "top.png"]
    assert list(found.labels) == ["a", "b", "b", None]
    assert found.kind == "folder"


def test_links_in_circles_and_the_run_itself_are_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.png").write_bytes(encoded())
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "run" / "exemplars").mkdir(parents=True)
    (tmp_path / "run" / "exemplars" / "1.jpg").write_bytes(encoded(kind="JPEG"))
    assert list(open_dataset(tmp_path, skip=tmp_path / "run").paths) == ["a/one.png"]


def test_odd_names(tmp_path, explainer):
    names = ["with space.png", "new\nline.png", "emoji 🦊.png", "x" * 251 + ".png", "#hash.png"]
    for name in names:
        (tmp_path / name).write_bytes(encoded())
    (tmp_path / os.fsdecode(b"latin \xe9.png")).write_bytes(encoded())
    run = colocalize(tmp_path, tmp_path / "out", model=explainer, concepts=1)
    found = run.table("images").to_pydict()
    assert set(names) <= set(found["path"])
    assert "latin \\xe9.png" in found["path"]
    assert set(found["status"]) == {"ok"}


def test_lists_and_their_labels(tmp_path, explainer):
    photos(tmp_path / "data", 4)
    names = ["left/000.png", "right/001.png", "left/002.png", "left/gone.png"]
    (tmp_path / "data" / "list.txt").write_text("# chosen\n" + "\n".join(names) + "\n\n")
    found = open_dataset(tmp_path / "data" / "list.txt")
    assert list(found.paths) == names
    table = "Path,Label\n" + "".join(f"{n},{n[0]}\n" for n in names)
    (tmp_path / "data" / "list.csv").write_text(table)
    run = colocalize(tmp_path / "data" / "list.csv", tmp_path / "out", model=explainer, concepts=2)
    images = run.table("images").to_pydict()
    assert images["label"] == ["l", "r", "l", "l"]
    assert images["status"] == ["ok", "ok", "ok", "error"]
    assert "there is no image" in images["error"][3]
    paths = [tmp_path / "data" / name for name in names[:2]]
    assert len(open_dataset(paths)) == 2
    with pytest.raises(UsageError, match="needs a column named one of path"):
        (tmp_path / "bad.csv").write_text("one,two\n1,2\n")
        open_dataset(tmp_path / "bad.csv")


def test_tar_shards_give_the_same_as_their_files(tmp_path, explainer):
    data = photos(tmp_path / "data", 12)
    plain = colocalize(data, tmp_path / "plain", model=explainer, concepts=2)
    paths = plain.table("images")["path"].to_pylist()
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard:03d}.tar", "w") as tar:
            for i, path in enumerate(paths[shard * 6 : shard * 6 + 6]):
                for ending, content in (
                    (".png", (data / path).read_bytes()), (".cls", path[:4].encode()),
                    (".json", b"{}"),
                ):  # fmt: skip
                    info = tarfile.TarInfo(f"{i:04d}{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    pattern = str(tmp_path / "shard-{000..001}.tar")
    run = colocalize(pattern, tmp_path / "out", model=explainer, concepts=2)
    torch.testing.assert_close(run.bank.components, plain.bank.components)
    images = run.table("images").to_pydict()
    assert images["path"][7] == "shard-001.tar/0001.png"
    assert images["label"][:3] == [p[:4] for p in paths[:3]]
    assert run.dataset().source(7) == (data / paths[7]).read_bytes()
    assert len(open_dataset(tmp_path / "shard-001.tar")) == 6
    with pytest.raises(UsageError, match=r"there is no shard .*002\.tar"):
        open_dataset(str(tmp_path / "shard-{000..002}.tar"))
    (tmp_path / "shard-002.tar").write_bytes(b"no tar file")
    with pytest.raises(UsageError, match="uncompressed tar file"):
        open_dataset(tmp_path / "shard-002.tar")


class Tensors:
    """A dataset as torchvision's are: images with targets, one of which fails."""

    classes = ("cat", "dog")

    def __init__(self) -> None:
        self.targets = [i % 2 for i in range(9)]

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index):
        if index == 4:
            raise RuntimeError("corrupt record")
        return torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(index)), index % 2


def test_a_python_dataset(tmp_path, explainer):
    run = colocalize(Tensors(), tmp_path, model=explainer, concepts=2)
    images = run.table("images").to_pydict()
    assert images["label"][:2] == ["cat", "dog"]
    assert images["error"][4] == "cannot read item 4: corrupt record"
    assert run.state["counts"]["unreadable"] == 1
    with pytest.raises(RunError, match="was a Python object"):
        run.dataset()


@pytest.fixture
def broken(tmp_path):
    """A folder of 16 photos, of which some are broken, each in a way of its own."""
    photos(tmp_path / "data", 16, size=(40, 56))
    folder = tmp_path / "data"
    whole = encoded((9, 99, 199), (64, 48), "JPEG", quality=95)
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("this is no image")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.png").write_bytes(huge())
    (folder / "folder.png").mkdir()
    (folder / "dangling.jpg").symlink_to(folder / "nothing.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return folder


def huge() -> bytes:
    """A PNG whose header says 50,000 x 50,000 pixels."""
    data = bytearray(encoded())
    import struct
    import zlib

    data[16:24] = struct.pack(">II", 50_000, 50_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def test_broken_images_are_rows_with_their_error(broken, tmp_path, explainer):
    run = colocalize(broken, tmp_path / "out", model=explainer, concepts=2, batch=4)
    rows = {row["path"]: row for row in run.table("images").to_pylist()}
    assert run.state["counts"]["unreadable"] == 6
    errors = {name: row["error"] for name, row in rows.items() if row["status"] == "error"}
    assert set(errors) == {
        "truncated.jpg", "text.png", "empty.jpg", "huge.png", "dangling.jpg", "pipe.jpg"
    }  # fmt: skip
    assert "truncated" in errors["truncated.jpg"]
    assert "it is text" in errors["text.png"]
    assert "0 bytes" in errors["empty.jpg"]
    assert "megapixels" in errors["huge.png"]
    assert "not a regular file" in errors["pipe.jpg"]
    assert rows["text.png"]["predicted"] is None
    assert len(run.table("instances")) == 16 * 2
    sample = colocalize(
        broken, tmp_path / "short", model=explainer, concepts=2, batch=4, memory=8 * 22 * 48
    )
    assert sample.state["counts"]["unreadable"] == 6


def test_strict_ends_the_run_and_goes_on_when_repaired(broken, tmp_path, explainer):
    with pytest.raises(RunError, match=r"--strict; without it"):
        colocalize(broken, tmp_path / "out", model=explainer, concepts=2, strict=True)
    for name in ("truncated.jpg", "text.png", "empty.jpg", "huge.png", "dangling.jpg", "pipe.jpg"):
        (broken / name).unlink()
        (broken / name).write_bytes(encoded())
    run = colocalize(broken, tmp_path / "out", model=explainer, concepts=2, strict=True)
    assert run.state["counts"]["unreadable"] == 0


def test_nothing_but_broken_images(tmp_path, explainer):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.png").write_text("no")
    with pytest.raises(Exception, match="no image could be read"):
        colocalize(tmp_path / "data", tmp_path / "out", model=explainer, concepts=1)


def test_a_folder_without_images_or_without_anything(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="there is no image in"):
        open_dataset(tmp_path)
    with pytest.raises(UsageError, match=r"there is no dataset .*; did you mean 'notes.txt'"):
        open_dataset(tmp_path / "note.txt")
    (tmp_path / "one.png").write_bytes(encoded())
    with pytest.raises(UsageError, match="is one image"):
        open_dataset(tmp_path / "one.png")
    with pytest.raises(UsageError, match="not int"):
        open_dataset(3)


def test_an_image_that_goes_between_the_passes(tmp_path, explainer):
    data = photos(tmp_path / "data", 12)
    gone = sorted(data.rglob("*.png"))[5]

    def delete(stage: str, done: int, total: int) -> None:
        if stage == "factorizing":
            gone.unlink(missing_ok=True)

    run = colocalize(data, tmp_path / "out", model=explainer, concepts=2, memory=8 * 12 * 48,
                     progress=delete)  # fmt: skip
    rows = run.table("images").to_pylist()
    assert [r["id"] for r in rows if r["status"] == "error"] == [5]
    assert "there is no image" in rows[5]["error"]
    assert not run.maps(5).any()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_modes_are_read_as_read_image_does(mode, tmp_path):
    path = tmp_path / ("one.tif" if mode == "CMYK" else "one.png")
    Image.new(mode, (50, 30)).save(path)
    sample = read_sample(FileDataset("list", str(tmp_path), [path.name], [None]), 0, PREP)
    assert sample.error is None
    assert (sample.width, sample.height) == (50, 30)
    assert sample.pixels.shape == (32, 32, 3)


def test_orientation_and_reduced_decoding(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((50, 50, 1))).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    dataset = FileDataset("list", str(tmp_path), ["turned.jpg"], [None])
    sample = read_sample(dataset, 0, PREP)
    assert (sample.width, sample.height) == (600, 800)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    exact = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(sample.pixels - exact).mean() < 3


@pytest.mark.parametrize("side", [32, 75])
def test_a_dataset_hands_the_network_what_an_explainer_hands_the_model(side, tmp_path):
    """Bit for bit, alone or in a batch, where no draft decoding comes between."""
    prep = Preprocessing(size=side, fixed=True, interpolation="bicubic")
    ready = dff.Explainer(seeded(ConvNet), layer="layer4", preprocessing=prep)
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(5)]
    for name, shape in zip(
        names, [(40, 56), (90, 31), (75, 75), (32, 32), (200, 300)], strict=True
    ):
        Image.fromarray(rng.integers(0, 255, (*shape, 3), np.uint8)).save(tmp_path / name)
    dataset = FileDataset("list", str(tmp_path), names, [None] * len(names))
    network, inputs = Network(ready), []
    for model in {ready.model, network.model}:
        model.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))
    samples = [read_sample(dataset, i, network.preprocessing) for i in range(len(names))]
    network(np.stack([sample.pixels for sample in samples]))
    (batch,) = inputs
    for i, name in enumerate(names):
        inputs.clear()
        ready(tmp_path / name, concepts=2)
        assert torch.equal(inputs[0], batch[i : i + 1])


@pytest.mark.parametrize("kind", [ConvNet, TokenNet])
def test_a_dataset_scores_concepts_as_an_explainer_does(kind):
    prep = Preprocessing(size=32, fixed=True)
    ready = dff.Explainer(seeded(kind), preprocessing=prep)
    black = np.zeros((32, 32, 3), np.uint8)  # class tokens come from it, where there are any
    bank = ready(np.random.default_rng(0).random((32, 32, 3)), concepts=3).bank
    ours, empty = Network(ready).concept_logits(bank)
    torch.testing.assert_close(ours, ready(black, bank=bank).concept_logits)
    assert empty.shape == ours[0].shape


def test_readers_keep_the_order(tmp_path):
    photos(tmp_path, 10)
    dataset = open_dataset(tmp_path)
    with Reader(dataset, PREP, workers=3, ahead=4) as reader:
        ours = [sample.pixels for sample in reader.stream([5, 1, 9, 9, 0])]
    theirs = [read_sample(dataset, i, PREP).pixels for i in (5, 1, 9, 9, 0)]
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_images_whose_activations_are_not_finite(tmp_path):
    fragile = toy()

    class Fragile(torch.nn.Module):
        def forward(self, x):
            return torch.where(x.mean((1, 2, 3), keepdim=True) > 1, x / 0, x)

    fragile.model.stem = torch.nn.Sequential(Fragile(), fragile.model.stem)
    photos(tmp_path / "data", 5)
    Image.new("RGB", (40, 40), "white").save(tmp_path / "data" / "white.png")
    run = colocalize(tmp_path / "data", tmp_path / "out", model=fragile, concepts=2)
    rows = run.table("images").to_pylist()
    assert [r["path"] for r in rows if r["status"] == "error"] == ["white.png"]
    assert "NaN" in rows[-1]["error"]

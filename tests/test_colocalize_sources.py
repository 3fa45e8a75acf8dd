"""Datasets where people keep them: buckets, shards at addresses, parquet, Hugging Face."""

import io
import json
import tarfile
from itertools import pairwise

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from dff import colocalize
from dff.colocalization.sources import blocks
from dff.colocalization.sources.opening import open_dataset
from dff.colocalization.sources.reader import Reader
from dff.demo.creatures import render
from dff.errors import ImageError, RunError, UsageError
from dff.images import Preprocessing, read_image


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(render(seed, size=64).image).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def memory():
    """An empty store in memory, and its contents forgotten afterwards."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def shelf(memory):
    for i in range(6):
        memory.pipe(f"/shelf/{'cats' if i % 2 else 'dogs'}/{i}.png", png(i))
    memory.pipe("/shelf/notes.txt", b"no image")
    memory.pipe("/shelf/.hidden/7.png", png(7))
    return "memory://shelf"


def parquet_table(n: int, *, named: bool = True) -> pa.Table:
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(n)]
    table = pa.table({"image": images, "label": [i % 2 for i in range(n)]})
    about = {"info": {"features": {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(about)} if named else {})


def pixels(dataset, index):
    return read_image(dataset.source(index)).pixels


def test_a_folder_at_an_address(shelf):
    dataset = open_dataset(shelf)
    assert dataset.kind == "remote"
    assert list(dataset.paths) == [
        "cats/1.png", "cats/3.png", "cats/5.png", "dogs/0.png", "dogs/2.png", "dogs/4.png",
    ]  # fmt: skip
    assert list(dataset.labels) == ["cats"] * 3 + ["dogs"] * 3
    np.testing.assert_array_equal(pixels(dataset, 3), render(0, size=64).image)
    assert dataset.given == shelf


def test_another_version_of_a_file_is_another_dataset(shelf, memory):
    before = open_dataset(shelf).fingerprint()
    assert open_dataset(shelf).fingerprint() == before
    memory.pipe("/shelf/cats/1.png", png(9))
    assert open_dataset(shelf).fingerprint() != before


def test_a_run_of_a_bucket_is_that_of_the_folder(shelf, memory, tmp_path):
    folder = tmp_path / "shelf"
    memory.get("/shelf", str(folder), recursive=True)
    there = colocalize(shelf, tmp_path / "there", model="demo", concepts=3)
    here = colocalize(folder, tmp_path / "here", model="demo", concepts=3)
    assert there.table("images")["path"].to_pylist() == here.table("images")["path"].to_pylist()
    assert there.table("instances").equals(here.table("instances"))
    assert len(there.dataset()) == 6
    assert (there.path / "concepts.png").is_file()


def shard_of(count: int, *, first: int = 0) -> bytes:
    """Return a tar file of images with their labels."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as shard:
        for i in range(first, first + count):
            for name, data in ((f"{i}.png", png(i)), (f"{i}.cls", str(i).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def shards(memory):
    """Two shards of six images each, fetched in small blocks."""
    for number in range(2):
        memory.pipe(f"/shards/{number:03}.tar", shard_of(6, first=6 * number))
    return "memory://shards/{000..001}.tar"


@pytest.fixture
def fetched(monkeypatch):
    """The (file, start) of every request, each of a small block."""
    requests = []
    monkeypatch.setattr(blocks, "BLOCK", 4096)
    plain = MemoryFileSystem.cat_file

    def counted(self, path, start=None, end=None, **options):
        requests.append((path, start))
        return plain(self, path, start=start, end=end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return requests


def test_shards_at_an_address(shards, memory):
    dataset = open_dataset(shards)
    assert len(dataset) == 12
    assert dataset.labels[7] == "7"
    np.testing.assert_array_equal(pixels(dataset, 7), render(7, size=64).image)
    np.testing.assert_array_equal(pixels(dataset, 0), render(0, size=64).image)


def test_shards_at_an_address_are_fetched_once_a_pass_and_in_order(shards, fetched):
    dataset = open_dataset(shards)
    fetched.clear()
    with Reader(dataset, Preprocessing(size=64), workers=3, ahead=6) as reader:
        samples = list(reader.stream(range(len(dataset))))
    assert all(sample.error is None for sample in samples)
    assert len(fetched) == len(set(fetched)) > 12
    files = [path for path, _ in fetched]
    assert files[: files.index(files[-1])] == [files[0]] * files.index(files[-1])
    starts = [start for path, start in fetched if path == files[0]]
    assert max(a - b for a, b in pairwise(starts)) <= 2 * 4096  # 3 threads


def test_a_run_of_shards_at_an_address_is_that_of_the_files(shards, memory, tmp_path):
    memory.get("/shards", str(tmp_path / "shards"), recursive=True)

    def stop(stage, done, total):
        if stage == "factorizing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        colocalize(shards, tmp_path / "there", model="demo", concepts=3, progress=stop)
    there = colocalize(shards, tmp_path / "there", model="demo", concepts=3)
    here = colocalize(tmp_path / "shards", tmp_path / "here", model="demo", concepts=3)
    for name in ("images", "instances", "scores"):
        assert there.table(name).equals(here.table(name))
    memory.pipe("/shards/001.tar", shard_of(6, first=7))  # another version
    with pytest.raises(RunError, match="fingerprint was"):
        colocalize(shards, tmp_path / "there", model="demo", concepts=3)


def test_another_version_of_parquet_is_another_dataset(memory, tmp_path):
    for seed in (0, 1):
        pq.write_table(pa.table({"image": [png(seed)]}), tmp_path / f"{seed}.parquet")
    prints = []
    for seed in (0, 1):
        memory.pipe("/p/a.parquet", (tmp_path / f"{seed}.parquet").read_bytes())
        prints.append(open_dataset("memory://p/a.parquet").fingerprint())
    assert prints[0] != prints[1]


@pytest.mark.parametrize("where", ["memory://cut.tar", "cut.tar"])
def test_a_shard_that_was_cut_short(where, memory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = shard_of(2)
    with tarfile.open(fileobj=io.BytesIO(whole)) as shard:
        third = [member.offset for member in shard][2]

    def put(data: bytes) -> None:
        memory.pipe("/cut.tar", data)
        (tmp_path / "cut.tar").write_bytes(data)

    for left, words in (
        (100, "truncated header"),
        (700, "unexpected end of data"),
        (third + 100, "ends within a header"),
    ):
        put(whole[:left])
        with pytest.raises(UsageError, match=rf"cut\.tar.*{words}; fetch or make it again"):
            open_dataset(where)
    put(whole[:third])  # nothing is half there
    with pytest.warns(UserWarning, match="no mark at its end.*are missing"):
        assert len(open_dataset(where)) == 1


def test_a_shard_that_is_cut_after_it_was_listed(memory, tmp_path):
    """Images before the cut are used, those behind it are rows with an error."""
    whole = shard_of(6)
    memory.pipe("/cut.tar", whole)
    dataset = open_dataset("memory://cut.tar")
    offset = dataset.places[4][1]
    memory.pipe("/cut.tar", whole[: offset + 10])
    with pytest.raises(ImageError, match="the shard ends early"):
        dataset.source(4)
    run = colocalize(dataset, tmp_path / "run", model="demo", concepts=2)
    rows = run.table("images").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["error"] * 2
    assert all("the shard ends early" in row["error"] for row in rows[4:])


@pytest.mark.parametrize("where", ["file", "folder", "pattern", "address"])
def test_parquet_with_a_column_of_images(where, memory, tmp_path):
    for number in range(2):
        file = tmp_path / f"train-{number}.parquet"
        pq.write_table(parquet_table(5), file, row_group_size=2)
        memory.pipe(f"/data/train-{number}.parquet", file.read_bytes())
    given = {
        "file": tmp_path / "train-0.parquet",
        "folder": tmp_path,
        "pattern": str(tmp_path / "train-*.parquet"),
        "address": "memory://data/train-*.parquet",
    }[where]
    dataset = open_dataset(given)
    assert len(dataset) == (5 if where == "file" else 10)
    assert dataset.paths[3] == "train-0.parquet/3"
    assert list(dataset.labels[:3]) == ["dog", "cat", "dog"]
    last = len(dataset) - 1
    for index, seed in ((0, 0), (last, 4), (3, 3), (last, 4)):
        np.testing.assert_array_equal(pixels(dataset, index), render(seed, size=64).image)


def test_parquet_of_plain_bytes_and_numbers_for_labels(tmp_path):
    table = pa.table({"id": [1, 2], "jpg": [png(0), None], "label": [7, None]})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = open_dataset(tmp_path / "a.parquet")
    assert list(dataset.labels) == ["7", None]
    np.testing.assert_array_equal(pixels(dataset, 0), render(0, size=64).image)
    with pytest.raises(ImageError, match=r"a\.parquet/1: the row holds no bytes"):
        dataset.source(1)


def test_parquet_without_images(tmp_path):
    pq.write_table(pa.table({"id": [1], "name": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"no column of images.*it has id, name"):
        open_dataset(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match=r"b\.parquet' as a parquet file"):
        open_dataset(tmp_path / "b.parquet")


def test_a_table_beside_photos_is_about_them(tmp_path):
    pq.write_table(parquet_table(2), tmp_path / "metadata.parquet")
    (tmp_path / "0.png").write_bytes(png(0))
    assert list(open_dataset(tmp_path).paths) == ["0.png"]


def test_a_run_of_parquet_goes_on_and_is_opened_again(tmp_path):
    pq.write_table(parquet_table(6), tmp_path / "a.parquet", row_group_size=4)
    run = colocalize(tmp_path / "a.parquet", tmp_path / "run", model="demo", concepts=3)
    assert run.table("images")["label"].to_pylist() == ["dog", "cat"] * 3
    np.testing.assert_array_equal(pixels(run.dataset(), 5), render(5, size=64).image)


class Rows:
    """What a dataset of Hugging Face's library offers."""

    class _Label:
        names = ("dog", "cat")

    features = {"image": object(), "label": _Label()}  # noqa: RUF012

    def __len__(self):
        return 4

    def __getitem__(self, key):
        if key == "label":
            return [0, 1, 0, 1]
        return {"image": Image.fromarray(render(key, size=64).image), "label": key % 2}


def test_hugging_faces_rows():
    dataset = open_dataset(Rows())
    assert list(dataset.labels) == ["dog", "cat", "dog", "cat"]
    np.testing.assert_array_equal(pixels(dataset, 2), render(2, size=64).image)


def test_rows_without_an_image():
    rows = Rows()
    dataset = open_dataset(rows)
    dataset.items = [{"text": "a"}]
    with pytest.raises(ImageError, match=r"no image under.*it has text"):
        dataset.source(0)


def test_a_list_may_name_addresses(shelf, tmp_path):
    (tmp_path / "list.txt").write_text("memory://shelf/dogs/0.png\nmemory://shelf/dogs/none.png\n")
    dataset = open_dataset(tmp_path / "list.txt")
    np.testing.assert_array_equal(pixels(dataset, 0), render(0, size=64).image)
    with pytest.raises(ImageError, match="cannot read memory://shelf/dogs/none"):
        dataset.source(1)


class NoCredentialsError(Exception):
    """As botocore's: no OSError."""


class Locked(MemoryFileSystem):
    """A bucket that wants credentials."""

    protocol = "locked"
    error: Exception = PermissionError("Access Denied")

    def refuse(self, *_, **__):
        raise type(self).error

    find = open = info = cat_file = refuse


@pytest.fixture
def locked(monkeypatch):
    fsspec.register_implementation("locked", Locked, clobber=True)
    return Locked


@pytest.mark.parametrize(
    "error", [PermissionError("Access Denied"), NoCredentialsError("Unable to locate credentials")]
)
@pytest.mark.parametrize(
    ("address", "task"),
    [("locked://bucket", "list"), ("locked://bucket/a.tar", "open"),
     ("locked://bucket/{0..3}.tar", "open"), ("locked://bucket/a.parquet", "open")],
)  # fmt: skip
def test_a_bucket_without_credentials(address, task, error, locked, monkeypatch):
    monkeypatch.setattr(locked, "error", error)
    words = rf"cannot {task} locked://bucket\S*: {error}; give the store's credentials as its own"
    with pytest.raises(UsageError, match=words):
        open_dataset(address)


@pytest.mark.parametrize("given", ["memory://shards/{000..001}.tar", "memory://shelf"])
def test_credentials_that_run_out_end_the_run_and_no_image_is_lost(
    given, shelf, shards, tmp_path, monkeypatch
):
    plain, asked = MemoryFileSystem.cat_file, []
    monkeypatch.setattr(blocks, "BLOCK", 4096)

    def expires(self, path, **options):
        asked.append(path)
        if len(asked) > 3:
            raise NoCredentialsError("The token has expired")
        return plain(self, path, **options)

    whole = colocalize(given, tmp_path / "whole", model="demo", concepts=2)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", expires)
    with pytest.raises(RunError, match=r"token has expired; give the store's.*where it stopped"):
        colocalize(given, tmp_path / "run", model="demo", concepts=2)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", plain)
    run = colocalize(given, tmp_path / "run", model="demo", concepts=2)
    assert run.state["counts"]["unreadable"] == 0
    assert run.table("instances").equals(whole.table("instances"))


def test_a_name_that_sounds_like_credentials_is_none(memory):
    memory.pipe("/b/credentials/401.png", png(0))
    dataset = open_dataset("memory://b")
    memory.rm("/b/credentials/401.png")
    with pytest.raises(ImageError, match="credentials/401"):
        dataset.source(0)


def test_one_image_that_may_not_be_read_is_a_row(shelf, tmp_path, monkeypatch):
    plain = MemoryFileSystem.cat_file

    def refuses(self, path, **options):
        if path.endswith("2.png"):
            raise PermissionError("Access Denied")
        return plain(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuses)
    run = colocalize(shelf, tmp_path / "run", model="demo", concepts=2)
    errors = [row["error"] for row in run.table("images").to_pylist() if row["error"]]
    assert errors == ["cannot read dogs/2.png: Access Denied"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nosuch://bucket/photos", "cannot open nosuch://bucket/photos: Protocol not known"),
        ("https://example.org/photos", "one address of the web.*into a .txt file"),
        ("memory://nothing/here", "nothing at memory://nothing/here"),
    ],
)
def test_addresses_that_cannot_be(address, words, memory):
    with pytest.raises(UsageError, match=words):
        open_dataset(address)


def test_an_address_without_an_image(memory):
    memory.pipe("/texts/a.txt", b"a")
    with pytest.raises(UsageError, match="there is no image in 'memory://texts'"):
        open_dataset("memory://texts")

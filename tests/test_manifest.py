"""Nothing is replaced or deleted but what the program can prove it wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dff.errors import OutputError
from dff.files import json_text, make_folder, write_file
from dff.manifest import Manifest
from tests.colocalized import identity


def test_own_files_are_replaced_and_removed(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "out")
    manifest.write({"a.txt": "one", "sub/b.txt": b"two"})
    again = Manifest(tmp_path / "out")
    assert list(again) == ["a.txt", "sub/b.txt"]
    assert again.identity == manifest.identity
    again.write({"a.txt": "three"})
    assert (tmp_path / "out/a.txt").read_text() == "three"
    assert again.sound("a.txt")
    assert again.remove(["sub/b.txt"]) == []
    assert not (tmp_path / "out/sub").exists()
    assert list(Manifest(tmp_path / "out")) == ["a.txt"]


def test_many_files_are_removed_and_what_was_changed_stays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dff.manifest.REMOVED", 3)
    names = [f"deep/er/{i}.txt" for i in range(8)]
    manifest = Manifest(tmp_path)
    manifest.write({**dict.fromkeys(names, "ours"), "other/a.txt": "ours"})
    (tmp_path / names[4]).write_text("mine now")
    (tmp_path / names[6]).unlink()
    assert manifest.remove([*names, "other/a.txt"]) == [names[4]]
    assert [p.name for p in tmp_path.rglob("*.txt")] == ["4.txt"]
    assert not (tmp_path / "other").exists()
    assert list(Manifest(tmp_path)) == [names[4]]


@pytest.mark.parametrize("hours", [-30, 0, 30])
def test_a_wrong_clock_takes_no_file_from_who_is_writing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    manifest = Manifest(tmp_path)
    manifest.write({"a.txt": "ours"})
    living, dead = (tmp_path / f".dff-{manifest.identity}-{name}" for name in ("new", "old"))
    for path in (living, dead):
        path.write_text("half")
    now = living.stat().st_mtime
    os.utime(dead, (now - 7200, now - 7200))
    monkeypatch.setattr("time.time", lambda: now + 3600 * hours)
    manifest.sweep()
    assert living.exists()
    assert not dead.exists()
    manifest.sweep(age=0)
    assert not living.exists()


@pytest.mark.parametrize("text", ["mine\n", '{"name": "a.txt"}\n', "[1]"])
def test_a_users_file_with_the_name_of_the_record_stays(tmp_path: Path, text: str) -> None:
    own, other = tmp_path / ".dff-manifest.jsonl", tmp_path / ".dff-manifest.notes.jsonl"
    other.write_text(text)
    Manifest(tmp_path).write({"a.txt": "ours"})
    Manifest(tmp_path).compact()
    assert other.read_text() == text
    own.write_text(text)
    manifest = Manifest(tmp_path)
    for write in (
        lambda: manifest.check(["b.txt"]),
        lambda: manifest.write({"b.txt": "ours"}),
        manifest.compact,
    ):
        with pytest.raises(OutputError, match=r"\.dff-manifest\.jsonl' is no record"):
            write()
    assert own.read_text() == text
    assert sorted(p.name for p in tmp_path.iterdir()) == [own.name, other.name, "a.txt"]


def test_json_holds_no_number_that_json_has_not() -> None:
    text = json_text({"a": [float("nan"), (1.5, float("-inf"))], "b": "ü\ud800"})
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": [None, [1.5, None]], "b": "ü\ud800"}
    assert json_text("ü", ascii_only=True) == '"\\u00fc"\n'


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _link(path: Path) -> None:
    (path.parent / "target").write_text("mine")
    path.symlink_to(path.parent / "target")


def _file(path: Path) -> None:
    path.write_text("mine")


@pytest.mark.parametrize("make", [_fifo, _folder, _dangling, _loop, _link, _file])
def test_what_is_not_ours_stays(tmp_path: Path, make) -> None:
    make(tmp_path / "a.txt")
    before = identity(tmp_path / "a.txt")
    manifest = Manifest(tmp_path)
    for write in (
        lambda: manifest.write({"b.txt": "b", "a.txt": "ours"}),
        lambda: manifest.check(["a.txt"]),
        lambda: write_file(tmp_path / "a.txt", "ours"),
    ):
        with pytest.raises(OutputError, match=r"a\.txt"):
            write()
    assert identity(tmp_path / "a.txt") == before
    assert manifest.remove(["a.txt"]) == ["a.txt"]
    assert not (tmp_path / "b.txt").exists()
    assert not [
        p for p in tmp_path.iterdir() if p.name.startswith(".dff-") and "manifest" not in p.name
    ]


def test_what_was_changed_since_is_the_users(tmp_path: Path) -> None:
    Manifest(tmp_path).write({"a.txt": "ours"})
    (tmp_path / "a.txt").write_text("edited")
    manifest = Manifest(tmp_path)
    assert not manifest.sound("a.txt")
    with pytest.raises(OutputError, match="changed since"):
        manifest.write({"a.txt": "ours again"})
    assert manifest.remove(["a.txt"]) == ["a.txt"]
    assert manifest.set_aside("a.txt").read_text() == "edited"
    manifest.write({"a.txt": "ours again"})
    assert (tmp_path / "a.txt~1").read_text() == "edited"


def test_a_write_that_was_killed_before_the_file_appeared(tmp_path: Path, monkeypatch) -> None:
    manifest = Manifest(tmp_path)
    manifest.write({"a.txt": "one"})
    monkeypatch.setattr(
        "dff.manifest.put", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        manifest.write({"a.txt": "two"})
    monkeypatch.undo()
    again = Manifest(tmp_path)
    assert again.owns("a.txt")
    assert not again.sound("a.txt")  # "two" was announced, "one" is there: to be done again
    again.write({"a.txt": "two"})
    assert again.sound("a.txt")


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    Manifest(tmp_path).write({"a.txt": "one"})
    record = tmp_path / ".dff-manifest.jsonl"
    with record.open("ab") as file:
        file.write(b'{"name": "b.txt", "dig')
    manifest = Manifest(tmp_path)
    manifest.write({"c.txt": "three"})
    assert list(Manifest(tmp_path)) == ["a.txt", "c.txt"]


def test_writers_have_records_of_their_own(tmp_path: Path) -> None:
    first, second = Manifest(tmp_path), Manifest(tmp_path, writer=1)
    first.begin()
    second.load()
    second.write({"b.txt": "two"})
    first.load()
    assert first.sound("b.txt")
    first.compact()
    assert [p.name for p in sorted(tmp_path.iterdir())] == [".dff-manifest.jsonl", "b.txt"]
    assert Manifest(tmp_path).sound("b.txt")


def test_inputs_are_never_outputs(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.write({"a.png": "ours"})
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(OutputError, match="is an input"):
        manifest.check(["a.png"], inputs=[tmp_path / "link.png"])


def test_a_name_cannot_lead_out(tmp_path: Path) -> None:
    outside = make_folder(tmp_path / "outside")
    out = make_folder(tmp_path / "out")
    (out / "maps").symlink_to(outside)
    with pytest.raises(OutputError, match="leads out"):
        Manifest(out).write({"maps/a.txt": "ours"})
    assert not list(outside.iterdir())


def test_left_temporaries_are_swept_by_identity_only(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    ours = tmp_path / f".dff-{manifest.identity}-0123.png"
    others = [tmp_path / ".env.local", tmp_path / ".dff-0000000000000000-01.png"]
    for path in (ours, *others):
        path.write_text("x")
    manifest.sweep()
    assert ours.exists()  # young: it may be another process's
    manifest.sweep(age=0)
    assert not ours.exists()
    assert all(path.exists() for path in others)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_file(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640

"""Nothing of the user's is lost, and nothing is wrong in silence: runs under attack."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dff.cli import main
from dff.colocalization import Run
from dff.colocalization.explore import find, rename
from dff.errors import DFFError, OutputError, RunError, UsageError
from tests.colocalized import colocalize, digest, identity, photos, small_chunks, toy

OPTIONS = {"concepts": 2, "batch": 4, "workers": 2}
SAMPLED = {**OPTIONS, "memory": 8 * 10 * 48}


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    small_chunks(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a dataset and a finished run of it, all cells fitted or a sample."""
    place = tmp_path_factory.mktemp("made")
    data = photos(place / "data", 14)
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        colocalize(data, place / "exact", model=toy(), **OPTIONS)
        colocalize(data, place / "sample", model=toy(), **SAMPLED)
    return place


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.is_symlink() and not p.name.startswith(".dff-lock")
    }


# --- what is not a run's own


@pytest.mark.parametrize("name", ["work", "maps", "exemplars"])
@pytest.mark.parametrize("force", [False, True])
def test_a_dataset_beside_the_output_is_never_touched(name, force, tmp_path, monkeypatch):
    photos(tmp_path / name, 4)
    monkeypatch.chdir(tmp_path)
    before = content(tmp_path)
    with pytest.raises(DFFError, match=r"is not a run|holds what is read"):
        colocalize(name, ".", model=toy(), force=force, **OPTIONS)
    assert content(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ["work/thesis.tex", "report.html"], ["run.json"], [".env"], ["overlay.mp4"],
        ["maps/00000.safetensors", "bank.safetensors"], [".dff-lock"],
    ],
)  # fmt: skip
def test_a_folder_of_the_users_is_refused(names, force, made, tmp_path):
    out = tmp_path / "out"
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("precious")
    with pytest.raises(DFFError, match=r"is not a run|cannot read|is not the lock"):
        colocalize(made / "data", out, model=toy(), force=force, **OPTIONS)
    assert all((out / name).read_text() == "precious" for name in names)


def test_the_users_files_in_a_run_stay(made, tmp_path):
    out = shutil.copytree(made / "exact", tmp_path / "run")
    mine = [".env.local", ".eslintrc.json", "notes.txt", "work/list.txt", "maps/.keep.me"]
    for name in mine:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    colocalize(made / "data", out, model=toy(), **OPTIONS)
    colocalize(made / "data", out, model=toy(), **{**OPTIONS, "concepts": 3}, force=True)
    assert len(Run(out).bank) == 3
    assert all((out / name).read_text() == "mine" for name in mine)


def test_a_list_inside_the_run_is_refused(made, tmp_path):
    out = shutil.copytree(made / "exact", tmp_path / "run")
    (out / "work").mkdir()
    listed = out / "work" / "list.txt"
    listed.write_text(str(next((made / "data").rglob("*.png"))))
    with pytest.raises(UsageError, match="holds what is read"):
        colocalize(listed, out, model=toy(), force=True, **OPTIONS)
    with pytest.raises(UsageError, match="holds what is read"):
        colocalize(out / "exemplars", out, model=toy(), force=True, **OPTIONS)
    assert listed.exists()


def test_a_lock_that_is_a_link_is_not_followed(made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out/.dff-lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="is not the lock"):
        colocalize(made / "data", tmp_path / "out", model=toy(), **OPTIONS)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling", "loop", "file"])
def test_find_replaces_nothing_but_its_own_sheets(kind, made, tmp_path):
    run = Run(shutil.copytree(made / "exact", tmp_path / "run"))
    out = tmp_path / "sheet.png"
    {
        "fifo": lambda: os.mkfifo(out),
        "folder": out.mkdir,
        "dangling": lambda: out.symlink_to(tmp_path / "nowhere"),
        "loop": lambda: out.symlink_to(out),
        "file": lambda: out.write_text("mine"),
    }[kind]()
    before = identity(out)
    with pytest.raises(OutputError, match=r"sheet\.png"):
        find(run, 0, out)
    assert identity(out) == before
    find(run, 0, tmp_path / "new.png")
    find(run, 1, tmp_path / "new.png")  # its own


def test_starting_over_that_is_killed_can_be_started_over(made, tmp_path, monkeypatch):
    out = shutil.copytree(made / "exact", tmp_path / "run")
    other = {**OPTIONS, "concepts": 3}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            colocalize(made / "data", out, model=toy(), force=True, **other)
    colocalize(made / "data", out, model=toy(), **other)
    colocalize(made / "data", tmp_path / "fresh", model=toy(), **other)
    assert digest(out) == digest(tmp_path / "fresh")


# --- damage

DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64]) + data[len(data) // 2 + 1 :]
    ),
    "zeroed": lambda data: bytes(len(data)),
    "folder": None,
    "gone": None,
}


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    elif how != "gone":
        path.write_bytes(DAMAGE[how](data))


@pytest.mark.parametrize(
    ("kind", "how"),
    [("exact", "truncated"), ("exact", "zeroed"), ("exact", "folder"),
     ("sample", "emptied"), ("sample", "flipped"), ("sample", "gone")],
)  # fmt: skip
def test_damaged_results_are_made_again(kind, how, made, tmp_path, recwarn):
    options = OPTIONS if kind == "exact" else SAMPLED
    expected = digest(made / kind)
    for name in (
        "maps/00001.safetensors", "bank.safetensors", "images.parquet", "coco.json",
        "concepts.png", "exemplars/concept-01/1.jpg",
    ):  # fmt: skip
        out = shutil.copytree(made / kind, tmp_path / "run")
        damage(out / name, how)
        colocalize(made / "data", out, model=toy(), **options)
        again = digest(out)
        assert {n: again[n] for n in expected} == expected, name
        shutil.rmtree(out)


@pytest.mark.parametrize("how", [*DAMAGE])
def test_a_damaged_state_is_said_and_can_be_started_over(how, made, tmp_path, recwarn):
    out = shutil.copytree(made / "exact", tmp_path / "run")
    damage(out / "run.json", how)
    with pytest.raises(RunError, match=r"--force|no run\.json"):
        colocalize(made / "data", out, model=toy(), **OPTIONS)
    with pytest.raises(RunError, match=r"run\.json"):
        Run(out)
    colocalize(made / "data", out, model=toy(), force=True, **OPTIONS)
    again = digest(out)
    assert {n: again[n] for n in digest(made / "exact")} == digest(made / "exact")


@pytest.mark.parametrize("how", ["truncated", "emptied", "flipped", "zeroed", "gone"])
def test_readers_of_a_damaged_run_say_so(how, made, tmp_path):
    def damaged(name: str) -> Run:
        out = tmp_path / "run"
        if out.exists():
            shutil.rmtree(out)
        damage(shutil.copytree(made / "exact", out) / name, how)
        return Run(out)

    for name, read in (
        ("maps/00000.safetensors", lambda run: run.maps(0)),
        ("bank.safetensors", lambda run: run.bank),
        ("instances.parquet", lambda run: run.table("instances")),
        ("coco.json", lambda run: find(run, 0, tmp_path / "x.png")),
        ("concepts.parquet", lambda run: rename(run, 0, "new")),
    ):
        with pytest.raises(RunError, match="is damaged or gone: start the run's"):
            read(damaged(name))


def interrupted(data: Path, out: Path, options: dict, stage: str, chunk: int = 1) -> None:
    """Run, and stop right after a stage's `chunk`-th report."""

    def stop(name: str, done: int, total: int) -> None:
        if name.startswith(stage) and done >= chunk:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        colocalize(data, out, model=toy(), progress=stop, **options)


@pytest.mark.parametrize(
    ("kind", "stage", "how"),
    [
        ("exact", "reading", "truncated"), ("exact", "reading", "gone"),
        ("exact", "placing", "emptied"), ("exact", "placing", "folder"),
        ("exact", "writing", "flipped"), ("exact", "writing", "zeroed"),
        ("sample", "first", "zeroed"), ("sample", "first", "folder"),
        ("sample", "placing", "flipped"), ("sample", "placing", "gone"),
        ("sample", "writing", "truncated"), ("sample", "writing", "emptied"),
    ],
)  # fmt: skip
def test_damaged_intermediates_are_made_again(kind, stage, how, made, tmp_path, recwarn):
    options = OPTIONS if kind == "exact" else SAMPLED
    expected = digest(made / kind)
    stopped = tmp_path / "stopped"
    interrupted(made / "data", stopped, options, stage, chunk=2)
    names = [
        str(p.relative_to(stopped))
        for p in sorted(stopped.rglob("*"))
        if p.is_file() and not p.name.startswith(".dff-") and p.name != "run.json"
    ]
    one_of_each = {os.path.dirname(name) + os.path.splitext(name)[1]: name for name in names}
    assert one_of_each
    for name in one_of_each.values():
        out = shutil.copytree(stopped, tmp_path / "run")
        damage(out / name, how)
        colocalize(made / "data", out, model=toy(), **options)
        again = digest(out)
        assert {n: again[n] for n in expected} == expected, name
        shutil.rmtree(out)


# --- photos that change


def repaint(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 56, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def changing(made):
    """Where photos are that change, and by kind what a run is that saw only the changed ones."""
    expected, data = {}, made / "changing" / "data"
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        for kind, options in (("exact", OPTIONS), ("sample", SAMPLED)):
            change(anew(made, data))
            fresh = colocalize(data, made / "changing" / kind, model=toy(), **options)
            expected[kind] = digest(fresh.path)
    return data, expected


def anew(made: Path, data: Path) -> Path:
    """Put the photos back as they were."""
    shutil.rmtree(data, ignore_errors=True)
    return Path(shutil.copytree(made / "data", data))


def change(data: Path) -> None:
    for seed, path in enumerate(sorted(data.rglob("*.png"))[0:12:5]):
        repaint(path, seed)


@pytest.mark.parametrize(
    ("kind", "stage", "stops"),
    [
        *((kind, stage, stops) for kind, first in (("exact", "reading"), ("sample", "first"))
          for stage in (first, "factorizing", "placing", "writing") for stops in (True, False)),
        ("exact", "end", False), ("sample", "end", False),
    ],
)  # fmt: skip
def test_photos_that_change_are_noticed(kind, stage, stops, made, changing, tmp_path):
    """Whether the run is stopped meanwhile or not, and also once it is finished."""
    options = OPTIONS if kind == "exact" else SAMPLED
    (data, expected), out = changing, tmp_path / "run"
    anew(made, data)
    done: list[str] = []

    def meanwhile(name: str, count: int, total: int) -> None:
        if name.startswith(stage) and count >= 1 and not done:
            done.append(name)
            change(data)

    if stage == "end":
        colocalize(data, out, model=toy(), **options)
        change(data)
    elif stops:
        interrupted(data, out, options, stage)
        change(data)
    progress = None if stops or stage == "end" else meanwhile
    with pytest.warns(UserWarning, match=r"photo\(s\) changed since they were read: left"):
        colocalize(data, out, model=toy(), progress=progress, **options)
    assert digest(out) == expected[kind]


def test_a_copy_with_other_times_is_the_same_photo(made, tmp_path, recwarn):
    data = shutil.copytree(made / "data", tmp_path / "data")
    run = colocalize(data, tmp_path / "run", model=toy(), **OPTIONS)
    before = digest(run.path)
    for path in data.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    colocalize(data, run.path, model=toy(), **OPTIONS)
    assert digest(run.path) == before
    assert not recwarn.list


def test_same_size_and_time_but_other_content(made, tmp_path):
    data = shutil.copytree(made / "data", tmp_path / "data")
    colocalize(data, tmp_path / "run", model=toy(), **OPTIONS)
    path = sorted(data.rglob("*.png"))[3]
    times, raw = os.stat(path), bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1  # inside the pixels: the checksum of the chunk is wrong now
    path.write_bytes(raw)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.warns(UserWarning, match="changed since"):
        colocalize(data, tmp_path / "run", model=toy(), **OPTIONS)


def test_photos_that_never_rest_end_the_run(made, tmp_path):
    data = shutil.copytree(made / "data", tmp_path / "data")
    victim, seeds = sorted(data.rglob("*.png"))[0], iter(range(1000))

    def again(name: str, done: int, total: int) -> None:
        if name.startswith("writing"):
            repaint(victim, next(seeds))

    with (
        pytest.warns(UserWarning, match="changed since"),
        pytest.raises(RunError, match="kept changing"),
    ):
        colocalize(data, tmp_path / "run", model=toy(), progress=again, **OPTIONS)


# --- and else


def test_naming_keeps_outlines_of_a_videos_frames(tmp_path):
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (56, 40))
    for i in range(30):
        frame = np.full((40, 56, 3), 30, np.uint8)
        frame[10:30, i : i + 20] = (40, 180, 250)
        writer.write(frame)
    writer.release()
    run = colocalize(tmp_path / "v.avi", tmp_path / "run", model=toy(), **OPTIONS)
    before = {p: p.read_bytes() for p in run.path.glob("concepts.png")}
    rename(run, 0, run.bank.names[0] + "x")
    rename(Run(run.path), 0, run.bank.names[0])
    assert {p: p.read_bytes() for p in run.path.glob("concepts.png")} == before


def test_a_score_of_the_users_is_used(made, tmp_path):
    from dff.explain import Explainer
    from dff.images import Preprocessing
    from tests.toys import ConvNet, seeded

    explainer = Explainer(
        seeded(ConvNet), layer="layer4", preprocessing=Preprocessing(size=32, mean=0.5, std=0.25),
        score=lambda output: output[:, :2] * 3, class_names=["x", "y"],
    )  # fmt: skip
    run = colocalize(made / "data", tmp_path / "run", model=explainer, **OPTIONS)
    scores = run.table("scores")
    assert set(scores["class"].to_pylist()) == {"x", "y"}
    assert {*run.table("images")["predicted"].to_pylist()} <= {"x", "y"}


def test_a_deleted_folder_ends_the_run_with_one_line(made, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"

    def gone(name: str, done: int, total: int) -> None:
        shutil.rmtree(out, ignore_errors=True)

    with pytest.raises(DFFError):
        colocalize(made / "data", out, model=toy(), progress=gone, **OPTIONS)


def test_the_commands_say_it_in_one_line(made, tmp_path, capsys, monkeypatch):
    photos(tmp_path / "maps", 3)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["colocalize", "maps", "--out", ".", "--model", "demo", "-k", "2"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    state = json.loads((made / "exact/run.json").read_text())
    assert state["format"] == 2

"""Outputs never take the place of inputs, of files of the user's, or of each other."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dff.cli import main
from dff.concepts import ConceptBank
from dff.errors import OutputError
from dff.images.names import distinct_names
from tests.test_cli import FACTORY, RECORD

ROOT = Path(__file__).resolve().parents[1]


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, labels and a photo, as the working directory."""
    (tmp_path / "net.py").write_text(FACTORY)
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    photo(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dff(capfd):
    """Run a command in-process; return (status, stdout, stderr)."""

    def run(*words: object):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return ended.value.code or 0, out, err

    return run


MODEL = ("--model", "net.py:build", "--labels", "labels.txt", "--size", "32", "-k", "2")


def contents(folder: Path) -> dict[str, bytes]:
    files = (
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **options: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("dff.models.load_model", load)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["x", "x", "X", "x-2", "x"], ["x", "x-3", "X-4", "x-2", "x-5"]),
        (["x-2", "x", "x"], ["x-2", "x", "x-3"]),
        (["é", "e\u0301", "É"], ["é", "é-2", "É-3"]),
        (["straße", "STRASSE"], ["straße", "STRASSE-2"]),
        (["a/b", "a\\b", "a:b"], ["a_b", "a_b-2", "a_b-3"]),
        (["con", "NUL.x", "COM1", "console"], ["_con", "_NUL.x", "_COM1", "console"]),
        (["", ".", "..", "\ud800\x1b"], ["image", "image-2", "image-3", "__"]),
        (["a.", " a "], ["a", "a-2"]),
    ],
)
def test_names_for_photos(given, expected):
    assert distinct_names(given) == expected


def test_no_two_names_are_one_on_any_system():
    rng = np.random.default_rng(0)
    for _ in range(200):
        letters = list("xX-2éÉe\u0301ſsß.  ")
        names = ["".join(rng.choice(letters, rng.integers(1, 5))) for _ in range(8)]
        found = distinct_names(names)
        folded = {unicodedata.normalize("NFD", name.upper()).casefold() for name in found}
        assert len(folded) == len(names), names
    long = distinct_names(["ü" * 300] * 3)
    assert len(set(long)) == 3
    assert all(len(f"{name}_concepts.png".encode()) < 255 for name in long)


def test_several_photos_have_a_folder_each(here, dff):
    names = ["a/x.jpg", "b/x.jpg", "b/X.jpg", "b/x-2.jpg", "b/x.png"]
    photos = [photo(here / name, seed) for seed, name in enumerate(names)]
    status, printed, errors = dff("analyze", *photos, *MODEL, "-o", "out", "--json", "--check")
    assert (status, errors) == (0, "")
    folders = [path.name for path in (here / "out").iterdir()]
    assert len({name.casefold() for name in folders}) == 5
    reported = [path for report in json.loads(printed) for path in report["paths"]]
    assert len(set(reported)) == len(reported) == 5 * 8
    assert all(Path(path).is_file() for path in reported)


@pytest.mark.parametrize(
    ("command", "extra", "mine"),
    [
        ("analyze", (), "explanation.json"),
        ("analyze", (), "a_panel.png"),
        ("analyze", ("--check",), "a_check.png"),
        ("analyze", ("--evidence", "contributions"), "evidence.json"),
        ("analyze", ("a.png",), "a/bank.safetensors"),
        ("sweep", (), "a_tree.png"),
        ("sweep", (), "sweep.json"),
        ("demo", None, "demo.json"),
    ],
)
def test_files_of_the_user_stay(here, dff, monkeypatch, command, extra, mine):
    path = here / "out" / mine
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    no_model(monkeypatch)
    words = () if extra is None else ("a.png", *MODEL[:-2], *extra)
    before = contents(here)
    status, printed, errors = dff(command, *words, "-o", "out")
    assert (status, printed) == (1, "")
    assert f"{mine}' exists, and this program did not write it" in errors
    assert len(errors.splitlines()) == 1
    assert contents(here) == before


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_only_regular_files_are_replaced(here, dff, kind):
    path = here / "explanation.json"
    if kind == "link":
        (here / "target").write_text("mine")
        path.symlink_to(here / "target")
    elif kind == "dangling":
        path.symlink_to(here / "nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    status, _, errors = dff("analyze", "a.png", *MODEL, "-o", ".")
    assert status == 1
    assert "explanation.json' is not a regular file" in errors
    assert not (here / "nowhere").exists()


def test_results_are_replaced_by_the_next_run(here, dff):
    words = ("analyze", "a.png", *MODEL, "--check", "-o", "out")
    assert dff(*words)[0] == 0
    before = contents(here / "out")
    assert dff(*words)[0] == 0
    after = contents(here / "out")
    assert before.keys() == after.keys()
    assert before["bank.safetensors"] == after["bank.safetensors"]
    assert dff("analyze", "a.png", *MODEL, "-k", "3", "-o", "out")[0] == 0
    assert contents(here / "out")["bank.safetensors"] != before["bank.safetensors"]
    (here / "out" / "explanation.json").write_text("mine now")
    status, _, errors = dff(*words)
    assert status == 1
    assert "was changed since" in errors
    for _ in range(2):
        assert dff("sweep", "a.png", *MODEL[:-2], "-k", "2:3", "-o", "sweep")[0] == 0


def test_inputs_are_never_outputs(here, dff, monkeypatch):
    words = ("analyze", "a.png", *MODEL, "-o", "out")
    assert dff(*words)[0] == 0
    bank = here / "out" / "bank.safetensors"
    no_model(monkeypatch)
    photo(here / "a_concepts.png", 1)
    before = contents(here)
    for inputs in (
        ("a.png", "a_concepts.png", *MODEL, "--shared", "-o", "."),
        ("a.png", "--bank", bank, *MODEL[:2], "-o", "out"),
        ("a.png", *MODEL, "--weights", here / "out" / "../out/bank.safetensors", "-o", "out"),
        ("a.png", *MODEL[:2], "--labels", "out/explanation.json", "-o", "out"),
        ("a.png", *MODEL[:2], "--labels", f"out/{RECORD}", "-o", "out"),
    ):
        status, printed, errors = dff("analyze", *inputs)
        assert (status, printed) == (1, "")
        assert len(errors.splitlines()) == 1
        assert "input" in errors or "did not write it" in errors
        assert contents(here) == before
    (here / "linked").symlink_to(here / "out")
    status, _, errors = dff("analyze", "a.png", "--bank", "linked/bank.safetensors", *MODEL[:-2],
                            "-o", "out")  # fmt: skip
    assert status == 1
    assert "is an input" in errors


def bank() -> ConceptBank:
    return ConceptBank(torch.ones(2, 4), torch.ones(2), torch.ones(2), 0.1, "m", "l")


def test_banks_replace_banks_only(tmp_path):
    path = bank().save(tmp_path / "bank")
    assert bank().save(path) == path
    for name, content in (("text", b"mine"), ("empty", b""), ("photo", b"\x89PNG")):
        other = tmp_path / name
        other.write_bytes(content)
        with pytest.raises(OutputError, match="exists"):
            bank().save(other)
        assert other.read_bytes() == content
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(OutputError, match="not a regular file"):
            bank().save(tmp_path / name)


def test_paths_that_cannot_be(here, dff):
    """One clear line each, and never called unexpected."""
    (here / "dangling").symlink_to(here / "nowhere")
    (here / "loop").symlink_to(here / "loop")
    for out in ("/".join(["d"] * 2000), "a" * 300, "a\0b", "bad\ud800", "a.png", "a.png/sub",
                "dangling", "loop", "dangling/sub", "loop/sub", "/dev/null"):  # fmt: skip
        status, printed, errors = dff("analyze", "a.png", *MODEL, "-o", out)
        assert status in (1, 2), out
        assert printed == ""
        assert len(errors.splitlines()) == 1, errors
        assert "unexpected" not in errors, errors
        assert len(errors) < 600, errors
    for words in (("a\0b",), ("bad\ud800.png",), ("x" * 10_000,), ("a.png", "--labels", "a\0b"),
                  ("a.png", "--weights", "a\0b"), ("a.png", "--bank", "a\0b"),
                  ("a.png", "--bank", "bad\ud800"), ("a.png", "--labels", "bad\ud800"),
                  ("a.png", "--size", "99999"), ("a.png", "--size", "9" * 30)):  # fmt: skip
        status, printed, errors = dff("analyze", *MODEL, *words, "-o", "out")
        assert status in (1, 2), words
        assert printed == ""
        assert len(errors.splitlines()) == 1, errors
        assert "unexpected" not in errors, errors
        assert len(errors) < 600, errors


def test_any_folder_will_do(here, dff, monkeypatch):
    home = here / "home"
    home.mkdir()
    (home / "out").mkdir()
    (here / "link").symlink_to(home / "out")
    for out in ("~", "with  spaces ", "link", "-", "ümläut", "bad\udcff"):
        status, _, errors = dff("analyze", "a.png", *MODEL, "--out", out)
        assert (status, errors) == (0, ""), out
        assert (here / out / "explanation.json").is_file()


def started(here: Path, *words: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "dff", *words], cwd=here, env=env, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_at_once_into_one_folder(here):
    both = [started(here, "analyze", "a.png", *MODEL, "-o", "out") for _ in range(2)]
    ends = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert json.loads((here / "out" / "explanation.json").read_text())
    assert not list((here / "out").glob(".dff-[!m]*"))


def test_the_umask_is_kept(here, dff):
    before = os.umask(0o077)
    try:
        assert dff("analyze", "a.png", *MODEL, "-o", "out")[0] == 0
    finally:
        os.umask(before)
    for path in [here / "out", *(here / "out").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_working_directory_that_is_gone(here, tmp_path_factory):
    gone = tmp_path_factory.mktemp("gone")
    script = f"import os, shutil; os.chdir({str(gone)!r}); shutil.rmtree({str(gone)!r})\n"
    script += f"import sys; sys.path.insert(0, {str(ROOT)!r}); from dff.cli import main\n"
    done = subprocess.run(
        [sys.executable, "-c", script + f"main(['analyze', {str(here / 'a.png')!r}])"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "dff: the working directory is gone: change to one that exists\n"

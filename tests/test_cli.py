"""The command line, as its users meet it: output, exit statuses, one-line errors."""

import dataclasses
import errno
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from typer.main import get_command

from dff.cli import main
from dff.cli.app import app
from dff.cli.options import ModelOptions, with_model

FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )

def stopped():
    raise KeyboardInterrupt
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, labels and photos."""
    root = tmp_path_factory.mktemp("cli")
    (root / "net.py").write_text(FACTORY)
    (root / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    (root / "empty").mkdir()
    rng = np.random.default_rng(0)
    for name in ("one.jpg", "two photos.png"):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(root / name)
    return root


@pytest.fixture
def dff(folder, capfd, monkeypatch):
    """Run a command in-process; return (status, stdout, stderr)."""
    monkeypatch.chdir(folder)

    def run(*words: str):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return ended.value.code or 0, out, err

    return run


RECORD = ".dff-manifest.jsonl"
MODEL = ("--model", "net.py:build", "--labels", "labels.txt", "--size", "64")


def test_analyze_writes_and_prints(dff, tmp_path):
    out = tmp_path / "out"
    status, printed, _ = dff(
        "analyze",
        "one.jpg",
        "two photos.png",
        *MODEL,
        "-k",
        3,
        "--target",
        "cat",
        "--out",
        out,
        "--shared",
    )
    assert status == 0
    names = {
        "one_concepts.png", "one_panel.png", "two photos_concepts.png", "two photos_panel.png",
        "sheet.png", "explanation.json", "concepts.csv", "arrays.safetensors",
        "bank.safetensors",
    }  # fmt: skip
    assert {p.name for p in out.iterdir()} == {*names, RECORD}
    for name in names:
        assert str(out / name) in printed
    assert "Concept 3" in printed
    with safe_open(out / "arrays.safetensors", "np") as arrays:
        assert arrays.get_tensor("coefficients.0").shape == (3, 16, 24)
    assert cv2.imread(str(out / "one_panel.png")).shape[1] > 240


def test_json_is_all_there_is_on_stdout(dff, tmp_path):
    status, printed, _ = dff("analyze", "one.jpg", *MODEL, "--json", "--out", tmp_path)
    assert status == 0
    report = json.loads(printed)
    assert [c["concept"] for c in report["concepts"]] == [1, 2, 3, 4, 5]
    assert report["images"][0]["predictions"][0]["name"] in ("ant", "bee", "cat", "dog")
    assert all(Path(path).exists() for path in report["paths"])


def test_quiet_formats_and_bank(dff, tmp_path):
    arguments = ("analyze", "one.jpg", "two photos.png", *MODEL)
    status, printed, errors = dff(*arguments, "--quiet", "--format", "png", "--out", tmp_path)
    assert (status, printed, errors) == (0, "", "")
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two photos"}
    assert {p.name for p in (tmp_path / "one").iterdir()} == {
        "one_concepts.png", "one_panel.png", RECORD,
    }  # fmt: skip
    dff(*arguments, "--shared", "--format", "arrays", "--out", tmp_path / "fit")
    bank = tmp_path / "fit" / "bank.safetensors"
    status, _, _ = dff("analyze", "one.jpg", *MODEL, "--bank", bank, "--out", tmp_path / "again")
    assert status == 0
    assert (tmp_path / "again" / "bank.safetensors").read_bytes() == bank.read_bytes()


def test_layers_and_models(dff):
    status, printed, _ = dff("layers", "--model", "squeezenet1_1")
    assert status == 0
    assert "default layer: features" in printed
    assert "101% / 101%" in printed
    _, printed, _ = dff("layers", "-m", "net.py:build", "--size", "64", "--json", "--all")
    rows = json.loads(printed)
    assert [row["layer"] for row in rows if row["default"]] == ["0"]
    assert any(row["rows"] is None for row in rows)
    (row,) = [row for row in rows if row["default"]]
    assert row["is_grid"]
    assert row["reaches_output"]
    assert row["stride"] == 64 / row["rows"]
    assert 0.7 < row["moves_down"] < 1.3
    _, printed, _ = dff("models", "squeezenet")
    assert printed.split() == ["squeezenet1_0", "squeezenet1_1"]
    _, printed, _ = dff("models", "--json")
    assert "resnet50" in json.loads(printed)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("one.jpg", "--concepts", "0"), 2, "from 1 on, auto, or a range LO:HI, not '0'"),
        (("one.jpg", "--concepts", "many"), 2, "not 'many'"),
        (("one.jpg", "--concepts", "4:2"), 2, "not '4:2'"),
        (("one.jpg", "--concepts", "2:9"), 2, "which allow 8 at most"),
        (("one.jpg", "--concepts", "9"), 2, "8 channels here: at most 8"),
        (("one.jpg", "--target", "cart"), 2, "no class 'cart'; did you mean 'cat'"),
        (("one.jpg", "--target", "4"), 2, "classes 0 to 3"),
        (("one.jpg", "--layer", "00"), 1, "no layer '00'; did you mean '0"),
        (("one.jpg", "--layer", "3"), 1, "'3' has no grid"),
        (("one.jpg", "--mean", "a"), 2, "--mean takes one number, or one a channel"),
        (("one.jpg", "--std", "0"), 2, "std must be positive"),
        (("one.jpg", "--format", "gif"), 2, "choose from png, html, json, csv, arrays"),
        (("one.jpg", "--bank", "labels.txt"), 1, "cannot read the concept bank"),
        (("one.jpg", "--device", "abacus"), 2, "'abacus' cannot be used"),
        (("oen.jpg",), 1, "did you mean 'one.jpg'"),
        (("empty",), 1, "the folder empty holds no images"),
        (("labels.txt",), 1, "labels.txt"),
        (("one.jpg", "--weights", "none.pth"), 1, "does not exist"),
        (("one.jpg", "--out", "labels.txt"), 1, "it is a file"),
        (("one.jpg", "--out", "labels.txt/sub"), 1, "is a file"),
    ],
)
def test_one_line_errors(dff, words, status, message, tmp_path, folder):
    before = sorted(p.name for p in folder.iterdir())
    extra = () if "--out" in words else ("--out", tmp_path / "out")
    got, printed, errors = dff("analyze", *words, *MODEL, *extra)
    assert message in errors
    assert got == status
    assert printed == ""
    assert len(errors.strip().splitlines()) == 1
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == [
        name for name in before if name != "__pycache__"
    ]
    assert not list(tmp_path.rglob("*.*"))


def test_unknown_models_and_flags(dff):
    status, _, errors = dff("analyze", "one.jpg", "--model", "resnet5")
    assert status == 1
    assert "did you mean 'resnet50'" in errors
    assert dff("analyze", "one.jpg", "--wrong-flag")[0] == 2
    assert dff("analyze")[0] == 2
    assert dff("nothing")[0] == 2


def test_a_full_disk_leaves_nothing_half_written(dff, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    status, _, errors = dff("analyze", "one.jpg", *MODEL, "--out", tmp_path)
    assert status == 1
    assert "No space left on device; free some space" in errors
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable(dff, tmp_path):
    tmp_path.chmod(0o500)
    status, _, errors = dff("analyze", "one.jpg", *MODEL, "--out", tmp_path / "out")
    assert status == 1
    assert "ermission denied" in errors


def test_unexpected_errors_are_one_line_too_and_debug_shows_more(dff, capfd, monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("by surprise")

    monkeypatch.setattr("dff.explain.Explanation.save", broken)
    words = ("analyze", "one.jpg", *MODEL, "--out", str(tmp_path))
    status, _, errors = dff(*words)
    assert status == 1
    assert errors.strip() == "dff: unexpected ZeroDivisionError: by surprise (--debug shows where)"
    with pytest.raises(SystemExit):
        main([*words, "--debug"])
    assert "Traceback" in capfd.readouterr().err


def test_interrupts_exit_with_130(dff, tmp_path):
    words = ("analyze", "one.jpg", "--model", "net.py:stopped", "--out", tmp_path / "out")
    assert dff(*words) == (130, "", "dff: interrupted\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["analyze", "sweep", "colocalize", "layers"])
def test_commands_share_the_options_of_the_model(command):
    options = {one.name: one for one in get_command(app).commands[command].params}
    panel = [name for name in options if options[name].rich_help_panel == "Model"]
    every = [field.name for field in dataclasses.fields(ModelOptions)]
    few = ["model", "weights", "num_classes", "size"]
    assert panel == (few if command == "layers" else every)
    assert "chosen" not in options
    assert options["model"].opts == ["--model", "-m"]
    assert options["model"].default == "resnet50"
    assert options["num_classes"].opts == ["--num-classes"]


def test_each_option_of_the_model_reaches_its_field():
    received = []

    @with_model()
    def command(photo: str, chosen: ModelOptions, top: int = 3) -> None:
        received.append((photo, chosen, top))

    given = {field.name: f"its {field.name}" for field in dataclasses.fields(ModelOptions)}
    command(photo="a.png", **given, top=1)
    assert received == [("a.png", ModelOptions(**given), 1)]
    assert [*inspect.signature(command).parameters] == ["photo", *given, "top"]


def test_help_is_light():
    """Heavy packages are not imported for --help, which keeps it under 0.3 s."""
    code = (
        "import sys; from dff.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'sklearn', 'PIL', 'torchvision', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "analyze" in done.stdout


def test_analyze_is_light(tmp_path):
    """A photo's concepts take torch, and no package that these do not use."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    code = (
        "import sys; from dff.cli import main\n"
        "try: main(['analyze', 'a.png', '--model', 'demo', '-q'])\n"
        "except SystemExit as ended: assert ended.code == 0\n"
        "heavy = {'sklearn', 'scipy', 'torchvision', 'pyarrow', 'pandas', 'matplotlib', 'sympy',\n"
        "    'requests', 'timm', 'transformers', 'jinja2', 'torch._dynamo'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("start", [["cli.py"], ["-m", "dff"]])
def test_all_ways_in(start):
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, *start, "--version"], cwd=root, capture_output=True, text=True
    )
    assert done.stdout.startswith("dff 0.")


@pytest.fixture
def unread():
    """What writes to a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        yield file


@pytest.mark.parametrize("words", [("models",), ("models", "--json")])
def test_a_reader_that_goes_away_is_no_error(unread, monkeypatch, capfd, words):
    monkeypatch.setattr(sys, "stdout", unread)
    with pytest.raises(SystemExit):
        main([*words])
    assert capfd.readouterr().err == ""
    unread.flush()  # as at the end of a process: what nobody reads goes nowhere


def test_nor_to_the_end_of_the_process(unread):
    done = subprocess.run(
        [sys.executable, "-m", "dff", "--version"], stdout=unread, stderr=subprocess.PIPE
    )
    assert done.stderr == b""

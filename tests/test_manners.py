"""Manners: what a user types by habit works, and what went wrong is said at once."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import dff
from dff.cli import main
from dff.concepts import ConceptBank, titles
from dff.errors import ImageError, UsageError
from dff.explain.drawing import Drawing
from dff.labels import class_index
from tests.test_cli import FACTORY
from tests.test_cli_outputs import contents, photo
from tests.toys import ConvNet, seeded

MODEL = ("--model", "net.py:build", "--labels", "labels.txt", "--size", "32", "-k", "2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, labels and photos, as the working directory."""
    (tmp_path / "net.py").write_text(FACTORY)
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    photo(tmp_path / "a.png")
    for seed, name in enumerate(("c.png", "b.JPG", ".hidden.png", "sub/d.png")):
        photo(tmp_path / "photos" / name, seed)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, capfd):
    """Run a command in-process; return (status, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return call


@pytest.mark.parametrize("first", [("a.png", *MODEL), (*MODEL, "a.png")])
def test_a_photo_in_place_of_a_command_is_analysed(here, run, first):
    status, printed, errors = run("analyze", "a.png", *MODEL)
    assert (status, errors) == (0, "")
    written = contents(here / "dff-out")
    assert run(*first) == (0, printed, "")
    assert contents(here / "dff-out").keys() == written.keys()
    assert "--top-k" in run("a.png", "--help")[1]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("aa.png", *MODEL), 1, "there is no image aa.png; did you mean 'a.png'"),
        (("http://[", *MODEL), 1, "no valid http(s) address"),
        (("anlyze", "a.png"), 2, "No such command 'anlyze'"),
        (("--sise", "3"), 2, "--sise"),
        (("empty", *MODEL), 1, "the folder empty holds no images (.avif .bmp "),
        (("sweep", "empty", *MODEL[:-2]), 1, "the folder empty holds no images"),
    ],
)
def test_what_is_neither_command_nor_photo(run, words, status, message):
    got, printed, errors = run(*words)
    assert message in errors
    assert (got, printed, len(errors.splitlines())) == (status, "", 1)


def test_a_folder_is_its_images(here, run):
    status, printed, _ = run("photos", *MODEL, "--shared", "--json")
    assert status == 0
    assert [image["image"] for image in json.loads(printed)["images"]] == ["b", "c"]
    assert run("sweep", "photos", *MODEL[:-2], "-k", "2:3", "-q")[::2] == (0, "")
    assert (here / "dff-out" / "b_tree.png").is_file()
    explainer = dff.Explainer(seeded(ConvNet))
    names = [one.name for one in explainer("photos", concepts=2)]
    assert names == ["b", "c"]
    assert [one.name for one in explainer(["a.png", here / "photos"], concepts=2)] == ["a", *names]
    with pytest.raises(ImageError, match="holds no images"):
        explainer(Path("empty"))


def test_concepts_are_each_photos_own_unless_shared_ones_are_asked_for(here, run):
    words = ("photos", *MODEL, "--json", "--format", "arrays")
    alone = [json.loads(run(name, *words[1:])[1]) for name in ("photos/b.JPG", "photos/c.png")]
    status, printed, _ = run(*words, "-o", "out")
    assert status == 0
    several = json.loads(printed)
    for report, other, name in zip(several, alone, "bc", strict=True):
        assert report["concepts"] == other["concepts"]
        assert report["paths"] == [f"out/{name}/{file}.safetensors" for file in ("arrays", "bank")]
    status, printed, _ = run(*words, "--shared", "-o", "shared")
    assert json.loads(printed)["paths"] == ["shared/arrays.safetensors", "shared/bank.safetensors"]
    assert len(json.loads(printed)["images"]) == 2
    assert "--separate" in run(*words, "--separate")[2]


@pytest.mark.parametrize("shared", [(), ("--shared",)])
def test_broken_photos_do_not_end_the_others(here, run, shared):
    (here / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    words = ("broken.jpg", "a.png", "gone.png", "photos/c.png", *MODEL, *shared)
    status, printed, errors = run(*words)
    assert status == 1
    assert [line[:16] for line in errors.splitlines()] == ["dff: cannot read", "dff: there is no"]
    assert "broken.jpg" in errors.splitlines()[0]
    folders = [Path("dff-out")] * 2 if shared else [Path("dff-out/a"), Path("dff-out/c")]
    for folder, name in zip(folders, "ac", strict=True):
        assert (folder / f"{name}_panel.png").is_file()
        assert str(folder / f"{name}_panel.png") in printed
    assert not {p.name for p in (here / "dff-out").iterdir()} & {"broken", "gone"}
    status, printed, again = run(*words, "--json")
    assert (status, again) == (1, errors)
    reports = [json.loads(printed)] if shared else json.loads(printed)
    assert [image["image"] for one in reports for image in one["images"]] == ["a", "c"]
    status, printed, errors = run("gone.png", "broken.jpg", *MODEL, *shared, "--json", "-o", "no")
    assert (status, printed, len(errors.splitlines())) == (1, "", 2)
    assert not (here / "no").exists()


def test_photos_without_activations_do_neither(here, run):
    (here / "zero.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4, bias=False), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))\n"
        "    nn.init.uniform_(net[0].weight, 0, 1)\n"
        "    return net\n"
    )
    Image.new("RGB", (40, 40)).save(here / "black.png")
    words = ("--model", "zero.py:build", "--mean", "0", "--std", "1", "--size", "32", "-k", "2")
    status, printed, errors = run("black.png", "a.png", *words, "--layer", "1")
    assert status == 1
    assert "dff-out/a/a_panel.png" in printed
    assert errors.startswith("dff: black: ")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "a tensor is normalised .* not torch.uint8"),
        (torch.ones(2, 3, 32, 32) * 128, r"from -2.1. to 2.64 .* from 128 to 128"),
        (torch.linspace(0, 255, 3 * 32 * 32).view(3, 32, 32), "from 0 to 255.*read_image"),
    ],
)
def test_tensors_that_are_not_normalised_are_refused(x, message):
    explainer = dff.Explainer(seeded(ConvNet))
    with pytest.raises(UsageError, match=message):
        explainer(x, concepts=2)
    levels = dff.Preprocessing(mean=0, std=1 / 255)
    pixels = dff.Explainer(seeded(ConvNet), preprocessing=levels)
    pixels(torch.rand(3, 32, 32) * 255, concepts=2)
    explainer(torch.randn(3, 32, 32) * 3, concepts=2)


def test_labels_of_another_number_are_an_error(here, run):
    (here / "few.txt").write_text("ant\nbee\n")
    for command in ("analyze", "sweep", "colocalize"):
        where = ("photos",) if command == "colocalize" else ("a.png",)
        words = ("--model", "net.py:build", "--size", "32", "--labels", "few.txt", "-o", "out")
        status, printed, errors = run(command, *where, *words)
        assert (status, printed) == (2, "")
        assert "2 class names do not fit an output of 4 classes" in errors
    with pytest.raises(UsageError, match="class names do not fit"):
        dff.Explainer(dff.load_model("demo", labels=["a", "b"]))


def test_random_weights_are_said_to_mean_nothing(here, run):
    words = ("--model", "squeezenet1_1", "--size", "65", "-k", "2")
    random = (*words, "--weights", "random")
    said = "the weights are random: the scores mean nothing"
    assert said in run("a.png", *random)[1]
    assert said in run("colocalize", "photos", *random, "-o", "run")[1]
    assert said not in run("a.png", *MODEL, "--weights", "random")[1]  # they are the factory's
    net = dff.load_model("squeezenet1_1", weights="random").module
    torch.save(net.state_dict(), "net.pth")
    assert said not in run("a.png", *words, "--weights", "net.pth")[1]


def test_reprs_fit_a_line_or_two(here):
    explainer = dff.Explainer(seeded(ConvNet))
    swept = explainer.sweep("a.png", concepts=range(2, 5))
    bank = swept.chosen.bank.renamed({0: "striped fur", 1: "long \n" * 100})
    named = replace(bank, model="net " * 100)
    finished = dff.colocalize("photos", "run", model=explainer, concepts=2)
    shown = [repr(x) for x in (bank, named, swept, swept.selection, finished, swept.chosen)]
    for text in shown:
        assert len(text) < 300
        assert not re.search(r"tensor|array|\n", text)
    k, stable = swept.selection.chosen, swept.selection.stability[swept.selection.chosen - 2]
    assert shown[0].startswith(f"ConceptBank({k} concepts of ConvNet at 'layer4': 'striped fur', ")
    assert shown[2] == f"Sweep(1 photo, 2 to 4 concepts of ConvNet at 'layer4', {k} chosen)"
    assert shown[3].startswith(f"Selection({k} chosen of 2 to 4 concepts, stability {stable:.2f}")
    assert shown[4] == "Run('run': 2 concepts, 3 images)"


@pytest.mark.parametrize(
    "words", [("analyze", "a.png"), ("sweep", "a.png"), ("colocalize", "photos"), ("demo",)]
)
def test_an_output_that_looks_like_a_file(here, run, words):
    model = () if words == ("demo",) else MODEL[:2]
    status, printed, errors = run(*words, *model, "--out", "pic.png")
    assert (status, printed) == (2, "")
    assert "--out is a folder, for several files, not 'pic.png': give --out pic" in errors
    assert not (here / "pic.png").exists()


def test_a_folder_may_be_called_as_a_file(here, run):
    (here / "pic.png").mkdir()
    assert run("a.png", *MODEL, "-q", "--out", "pic.png") == (0, "", "")


def test_a_name_that_two_classes_bear_is_asked_about(here, run):
    names = ["crane", "owl", "maillot", "crane", "maillot, tank suit"]
    with pytest.raises(UsageError, match="'Crane' is the name of classes 0 and 3: give its index"):
        class_index("Crane", names, 5)
    with pytest.raises(UsageError, match=r"of classes 2 and 4 .'maillot, tank suit'."):
        class_index("maillot", names, 5)
    assert class_index("maillot, tank suit", names, 5) == class_index("tank suit", names, 5) == 4
    assert class_index("owl, Owl", ["x", "owl, Owl"], 2) == 1
    (here / "labels.txt").write_text("crane\nbee\ncrane\ndog\n")
    status, _, errors = run("a.png", *MODEL, "--target", "crane")
    assert status == 2
    assert "classes 0 and 2" in errors


def test_a_named_concept_keeps_its_number(here, run):
    assert titles(("Concept 1", "striped fur", "Concept 7")) == (
        "Concept 1",
        "2 striped fur",
        "Concept 7",
    )
    assert titles(("Concept 1 + Concept 2", "concept")) == ("Concept 1 + Concept 2", "2 concept")
    run("a.png", *MODEL)
    ConceptBank.load("dff-out/bank.safetensors").renamed({1: "striped fur"}).save("bank")
    words = ("a.png", *MODEL[:2], "--bank", "bank", "-o", "named", "--evidence", "contributions")
    assert run(*words)[1].count("2 striped fur") == 2
    result = dff.Explainer(seeded(ConvNet))("a.png", concepts=2)
    named = replace(result.shared, bank=result.bank.renamed({1: "striped fur"}))
    entries = Drawing([replace(result.photos[0], shared=named)]).entries()
    assert [entry.title for entry in entries] == ["Concept 1", "2 striped fur"]
    run("colocalize", "photos", *MODEL, "-o", "run")
    assert run("name", "run", "2", "striped fur")[1] == "Concept 2 is now 2 striped fur\n"
    assert "2 striped fur" in run("colocalize", "photos", *MODEL, "-o", "run")[1]
    assert dff.Run("run").concept("2 Striped fur") == dff.Run("run").concept("striped fur") == 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda r: r.overlay(5),
            r"overlay\(\) takes .* by name .*top_k=, with_legend=, image_weight=",
        ),
        (
            lambda r: r.panel("cat"),
            r"panel\(\) takes .* by name .*target=, top_k=.*result\[i\].panel",
        ),
        (lambda r: r[5], "no photo 5: there is 1, and they count from 0"),
        (lambda r: r[-3], "no photo -3"),
        (lambda r: r["a"], "no photo 'a'"),
        (lambda r: r.heatmaps(5), r"size is \(height, width\) .* not 5"),
        (lambda r: r.heatmaps((5, 0)), r"size is \(height, width\) .* not \(5, 0\)"),
        (lambda r: r.masks(5), "options is a MaskOptions, not 5"),
    ],
)
def test_drawing_calls_say_what_they_take(here, draw, message):
    result = dff.Explainer(seeded(ConvNet))("a.png", concepts=2)
    with pytest.raises(UsageError, match=message):
        draw(result)
    assert result[-1].overlay(top_k=1).size == result.overlay(top_k=1).size
    assert "top_k" in str(inspect.signature(result.overlay))


def test_drawing_calls_of_a_sweep_say_which_photos_there_are(here):
    swept = dff.Explainer(seeded(ConvNet)).sweep(["a.png", "photos/c.png"], concepts=range(2, 4))
    for draw in (swept.overlays, swept.tree):
        with pytest.raises(UsageError, match="no photo 2: there are 2, and they count from 0"):
            draw(2)
        assert draw(1).size


@pytest.mark.parametrize("command", ["analyze", "sweep"])
def test_no_empty_folder_stays_where_a_command_fails(here, run, command):
    (here / "mine").mkdir()
    for out in ("new/deep", "mine"):
        status, _, errors = run(command, "a.png", "-m", "demo", "--layer", "nix", "--out", out)
        assert status == 1, errors
    assert not (here / "new").exists()
    assert (here / "mine").is_dir(), "it was there before"

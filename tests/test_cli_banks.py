"""A bank names its model: `dff analyze photo.jpg --bank bank.safetensors` builds it again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision import models

import dff
from dff import ConceptBank
from dff.cli import main
from dff.errors import BankError

MODEL = ("--model", "shufflenet_v2_x0_5", "--weights", "net.safetensors", "--labels", "labels.txt",
         "--mean", "0.5,0.4,0.3", "--std", "0.25", "--size", "64")  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network of four classes with weights, labels and a photo, and a bank of each command."""
    root = tmp_path_factory.mktemp("banks")
    torch.manual_seed(0)
    save_file(models.shufflenet_v2_x0_5(num_classes=4).state_dict(), root / "net.safetensors")
    (root / "labels.txt").write_text("ant\nbee\ncat\ndog\n")
    rng = np.random.default_rng(0)
    (root / "photos").mkdir()
    for name in ("a.png", "photos/b.png", "photos/c.png"):
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8)).save(root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for words in (
            ("analyze", "a.png", *MODEL, "--layer", "stage3", "-k", "3", "-o", "first", "-q"),
            ("colocalize", "photos", *MODEL, "-k", "3", "-o", "run", "-q"),
        ):
            with pytest.raises(SystemExit) as end:
                main([*words])
            assert not end.value.code
    return root


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, capfd):
    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([*words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return end.value.code or 0, out, err

    return run


@pytest.mark.parametrize("bank", ["first/bank.safetensors", "run/bank.safetensors"])
def test_a_bank_builds_its_model(run, bank):
    status, printed, errors = run("analyze", "photos/b.png", "--bank", bank, "--json", "-o", "x")
    assert status == 0, errors
    report = json.loads(printed)
    kept = ConceptBank.load(bank)
    assert (report["model"], report["layer"]) == ("shufflenet_v2_x0_5", kept.layer)
    assert report["images"][0]["predictions"][0]["name"] in ("ant", "bee", "cat", "dog")
    assert kept.recipe["mean"] == [0.5, 0.4, 0.3]
    assert kept.recipe["std"] == [0.25] * 3
    assert (kept.recipe["size"], kept.recipe["labels"]) == (64, "labels.txt")
    assert kept.recipe["weights"] == "net.safetensors"
    _, spelt, _ = run("analyze", "photos/b.png", "--bank", bank, *MODEL, "--layer", kept.layer,
                      "--json", "-o", "y")  # fmt: skip
    assert json.loads(spelt)["images"][0]["concepts"] == report["images"][0]["concepts"]


def test_what_the_command_line_adds_wins(run, here):
    (here / "other.txt").write_text("w\nx\ny\nz\n")
    words = ("analyze", "a.png", "--bank", "first/bank.safetensors", "-o", "x", "--json")
    status, printed, _ = run(*words, "--labels", "other.txt", "--size", "96")
    assert status == 0
    assert json.loads(printed)["images"][0]["predictions"][0]["name"] in tuple("wxyz")
    (here / "moved").mkdir()
    (here / "net.safetensors").rename(here / "moved/n.safetensors")
    assert run(*words, "--weights", "moved/n.safetensors")[0] == 0, "the same file, elsewhere"


@pytest.mark.parametrize(
    ("words", "both"),
    [
        (("--model", "resnet18"), ("'resnet18'", "'shufflenet_v2_x0_5'")),
        (("--layer", "stage4"), ("'stage4'", "'stage3'")),
        (("--mean", "0.1"), ("0.1", "0.5,0.4,0.3")),
        (("--weights", "other.safetensors"), ("'other.safetensors'", "'net.safetensors'")),
        (("--weights", "random"), ("'random'", "'net.safetensors'")),
    ],
)
def test_contradictions_are_refused_and_say_both(run, here, words, both):
    state = load_file(here / "net.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, here / "other.safetensors")
    status, _, errors = run("analyze", "a.png", "--bank", "first/bank.safetensors", *words)
    assert status == 2, errors
    for part in ("'first/bank.safetensors'", words[0], *both):
        assert part in errors


def test_weights_that_are_gone_or_others(run, here):
    words = ("analyze", "a.png", "--bank", "first/bank.safetensors")
    state = load_file("net.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, here / "net.safetensors")
    status, _, errors = run(*words)
    assert status == 2
    assert "'net.safetensors' is another file than" in errors
    (here / "net.safetensors").unlink()
    status, _, errors = run(*words)
    assert status == 1
    assert "'net.safetensors'" in errors
    assert "--weights" in errors
    assert not (here / "dff-out").exists()


def test_missing_labels_are_named(run, here):
    (here / "labels.txt").unlink()
    status, _, errors = run("analyze", "a.png", "--bank", "first/bank.safetensors")
    assert status == 1
    assert "'labels.txt'" in errors
    assert "--labels" in errors


def test_a_bank_that_does_not_say_asks_for_the_model(run, here):
    old = replace(ConceptBank.load("first/bank.safetensors"), recipe={})
    old.save("old")
    status, _, errors = run("analyze", "a.png", "--bank", "old")
    assert status == 2
    assert "'shufflenet_v2_x0_5'" in errors
    assert "--model" in errors
    assert run("analyze", "a.png", "--bank", "old", *MODEL, "-o", "x")[0] == 0
    assert ConceptBank.load("x/bank.safetensors").recipe["weights"] == "net.safetensors"
    with safe_open("old", "pt") as file:
        facts = json.loads(file.metadata()["concept_bank"])
    del facts["recipe"]
    save_file(load_file("old"), "older", {"concept_bank": json.dumps(facts)})
    assert ConceptBank.load("older").recipe == {}


def test_a_bank_runs_no_code(run, here):
    """Banks are files that anyone may have made; a factory is code."""
    (here / "net.py").write_text("open('ran', 'w')\ndef build(): pass\n")
    bank = ConceptBank.load("first/bank.safetensors")
    for model in ("net.py:build", "json:loads"):
        replace(bank, model=model).save("evil")
        status, _, errors = run("analyze", "a.png", "--bank", "evil")
        assert status == 2
        assert f"--model {model}" in errors
        assert not (here / "ran").exists()


def test_no_recipe_that_could_not_be_one():
    bank = dff.ConceptBank(torch.ones(1, 2), torch.ones(1), torch.ones(1), 0.0, "net", "layer")
    assert bank.recipe == {}
    for wrong in (
        [], {"weights": 3}, {"size": "x"}, {"mean": [float("nan")]}, {"std": "0.5"}, {"more": 1},
        {"weights": "x" * 5000}, {"num_classes": True},
    ):  # fmt: skip
        with pytest.raises(BankError, match="recipe"):
            replace(bank, recipe=wrong)
    made = replace(bank, recipe={"weights": "default", "size": 224})
    assert made.renamed({0: "x"}).recipe == made.recipe
    assert made.renamed(model="other").recipe == {}, "it was how another name is built"


def test_settings_that_were_named_say_what_an_old_bank_does_not(run, here):
    replace(ConceptBank.load("first/bank.safetensors"), recipe={}).save("old")
    (here / "dff.toml").write_text(
        "[model]\nmodel = 'shufflenet_v2_x0_5'\nweights = 'net.safetensors'\nsize = 64\n"
        "mean = [0.5, 0.4, 0.3]\nstd = 0.25\n"
    )
    status, _, errors = run("analyze", "a.png", "--bank", "old", "-o", "x")
    assert status == 0, errors
    (here / "net.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU())\n"
    )
    (here / "mine.toml").write_text("[model]\nmodel = 'net.py:build'\nsize = 64\n")
    words = ("analyze", "a.png", "--settings", "mine.toml", "-q")
    assert run(*words, "-o", "y")[0] == 0
    status, _, errors = run(*words, "--bank", "y/bank.safetensors", "-o", "z")
    assert status == 0, errors


def test_a_number_of_concepts_is_not_for_a_bank(run):
    assert run("analyze", "a.png", *MODEL, "-k", "3", "-o", "first", "-q")[0] == 0
    status, _, errors = run("analyze", "a.png", "--bank", "first/bank.safetensors", "-k", "4")
    assert (status, errors.count("\n")) == (2, 1)
    assert "--bank gives them" in errors

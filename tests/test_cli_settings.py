"""Settings in a file: dff.toml, --settings, --save-settings."""

import json
import os
import sys

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_a_file_gives_what_the_command_line_leaves_open(run, tmp_path):
    (tmp_path / "dff.toml").write_text(
        '[model]\nmodel = "demo"\nsize = 64\n\n[analyze]\nconcepts = 3\nformat = ["json"]\n'
        "[sweep]\nconcepts = '2:4'\n"
    )
    status, printed, errors = run("a.png", "--json")
    assert status == 0, errors
    report = json.loads(printed)
    assert (report["model"], len(report["concepts"])) == ("demo", 3)
    assert report["paths"] == ["dff-out/explanation.json"]
    assert report["settings"] == {
        "model": {"model": "demo", "size": 64}, "analyze": {"concepts": "3", "format": ["json"]},
    }  # fmt: skip
    written = json.loads((tmp_path / "dff-out/explanation.json").read_text())
    assert written["settings"] == report["settings"]
    status, printed, _ = run("a.png", "--json", "-k", "2")
    assert len(json.loads(printed)["concepts"]) == 2, "the command line wins"
    status, printed, _ = run("a.png")
    assert "settings (dff.toml): --model demo --size 64 --concepts 3 --format json" in printed
    assert json.loads(run("sweep", "a.png", "--json")[1])["counts"] == [2, 3, 4]
    sweep = json.loads((tmp_path / "dff-out/sweep.json").read_text())
    assert sweep["settings"]["sweep"] == {"concepts": "2:4"}
    assert run("layers")[1].startswith("demo at 64 x 64 px")


def test_a_run_is_repeated_from_its_saved_settings(run, tmp_path):
    words = ("-m", "demo", "-k", "4", "--mean", "0.4,0.5,0.6", "--smooth", "-o", "x", "-q")
    status, _, errors = run("analyze", "a.png", *words, "--evidence", "ablation", "--evidence",
                            "contributions", "--save-settings", "new/kept.toml")  # fmt: skip
    assert status == 0, errors
    kept = tomllib.loads((tmp_path / "new/kept.toml").read_text())
    assert kept == {
        "model": {"model": "demo", "mean": "0.4,0.5,0.6"},
        "analyze": {"concepts": "4", "out": "x", "smooth": True,
                    "evidence": ["ablation", "contributions"]},
    }  # fmt: skip
    assert (
        "# dff analyze a.png --settings new/kept.toml" in (tmp_path / "new/kept.toml").read_text()
    )
    before = {p.name: p.read_bytes() for p in (tmp_path / "x").iterdir() if p.name[0] != "."}
    assert run("analyze", "a.png", "--settings", "new/kept.toml")[0] == 0
    after = {p.name: p.read_bytes() for p in (tmp_path / "x").iterdir() if p.name[0] != "."}
    assert before == after


def test_only_a_file_that_was_written_is_written_again(run, tmp_path):
    words = ("analyze", "a.png", "-m", "demo", "-q", "--save-settings", "mine.toml")
    (tmp_path / "mine.toml").write_text("[model]\n")
    status, _, errors = run(*words)
    assert status == 1
    assert "'mine.toml' exists" in errors
    assert "another --save-settings" in errors
    assert not (tmp_path / "dff-out").exists(), "said before any work"
    (tmp_path / "mine.toml").unlink()
    assert run(*words)[0] == 0
    assert run(*words, "-k", "2")[0] == 0, "its own file"
    text = (tmp_path / "mine.toml").read_text()
    assert 'concepts = "2"' in text
    (tmp_path / "mine.toml").write_text(text.replace('"2"', '"3"'))
    assert run(*words)[0] == 1, "it was changed since"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nmodle = 'demo'", "no key 'modle' in [model]; did you mean 'model'"),
        ("[analyze]\nconcept = 3", "no key 'concept' in [analyze]; did you mean 'concepts'"),
        ("[analyze]\nsize = 64", "'size' belongs in [model]"),
        ("[analyse]\nconcepts = 3", "no table [analyse]; did you mean 'analyze'"),
        ("model = 'demo'", "'model' stands in no table: write it below [model]"),
        ("concepts = 3", "'concepts' stands in no table: write it below [analyze]"),
        ("[model]\nsize = 'big'", "'size' in [model] is a whole number, not 'big'"),
        ("[model]\nsize = 4", "'size' in [model]: "),  # the parser's words
        ("[model]\nsize = true", "'size' in [model] is a whole number, not True"),
        ("[analyze]\nsmooth = 'yes'", "'smooth' in [analyze] is true or false, not 'yes'"),
        ("[analyze]\nevidence = [1]", "'evidence' in [analyze] is a list of texts, not [1]"),
        ("[model]\nweights = {a = 1}", "'weights' in [model] is a text, not {'a': 1}"),
        ("[model\n", "is not TOML"),
        ("[model]\nsettings = 'x'", "no key 'settings' in [model]"),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_clear_line(run, tmp_path, text, message):
    (tmp_path / "dff.toml").write_bytes(text.encode(errors="surrogateescape"))
    status, _, errors = run("analyze", "a.png")
    assert status == 2
    assert "the settings 'dff.toml'" in errors
    assert message in errors
    assert errors.count("\n") == 1
    assert run("analyze", "--help")[0] == 0


def test_a_file_that_was_named_must_be_there(run):
    status, _, errors = run("analyze", "a.png", "--settings", "none.toml")
    assert status == 2
    assert "'none.toml'" in errors
    os.mkfifo("pipe")
    for wrong in ("pipe", "."):
        status, _, errors = run("analyze", "a.png", "--settings", wrong)
        assert status == 2
        assert "not a regular file" in errors
    assert run("analyze", "a.png", "-m", "demo", "-q")[0] == 0


def test_code_is_run_only_from_a_file_that_was_named(run, tmp_path):
    """A folder of somebody's photos may hold a dff.toml."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\nopen('ran', 'w')\n"
        "def build(): return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU())\n"
    )
    (tmp_path / "dff.toml").write_text("[model]\nmodel = 'net.py:build'\nsize = 64\n")
    status, _, errors = run("analyze", "a.png")
    assert status == 2
    assert "--settings dff.toml" in errors
    assert not (tmp_path / "ran").exists()
    status, _, errors = run("analyze", "a.png", "-k", "2", "--settings", "dff.toml", "-q")
    assert status == 0, errors


def test_a_bank_wins_over_the_file_that_lies_about(run, tmp_path):
    assert run("a.png", "-m", "demo", "-q", "-o", "x")[0] == 0
    (tmp_path / "dff.toml").write_text("[model]\nmodel = 'resnet18'\nweights = 'random'\n")
    status, printed, errors = run("b.png", "--bank", "x/bank.safetensors", "--json")
    assert status == 0, errors
    assert json.loads(printed)["model"] == "demo"

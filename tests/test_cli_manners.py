"""What makes the command line easy: names, tables, the next step, words for numbers."""

import csv
import io
import json
import sys
from dataclasses import replace

import pytest

import dff
from dff.errors import UsageError, closest
from dff.labels import class_index
from tests.toys import ConvNet, seeded

DEMO = ("analyze", "a.png", "-m", "demo", "-k", "3")


def test_concepts_are_named(run):
    status, printed, errors = run(*DEMO, "--name", "2=dog's  head", "--name", "3=a=b")
    assert status == 0, errors
    assert "2 dog's head" in printed
    assert "3 a=b" in printed
    bank = dff.ConceptBank.load("dff-out/bank.safetensors")
    assert bank.names == ("Concept 1", "dog's head", "a=b")
    words = ("analyze", "b.png", "--bank", "dff-out/bank.safetensors", "-o", "x", "--json")
    assert json.loads(run(*words)[1])["concepts"][1]["name"] == "dog's head"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--name", "head"), "--name takes NUMBER=NAME"),
        (("--name", "0=head"), "no concept 0: they count from 1 to 3"),
        (("--name", "4=head"), "no concept 4: they count from 1 to 3"),
        (("--name", "2=7"), "a name is not empty, no number, and not another concept's: '7'"),
        (("--name", "2= "), "a name is not empty"),
        (("--name", "1=x", "--name", "2=X"), "not another concept's: 'x'"),
        (("--name", "1=x", "--name", "1=y"), "--name names concept 1 twice"),
        (("b.png", "--name", "1=x"), "--shared"),
    ],
)
def test_wrong_names_are_refused(run, tmp_path, words, message):
    status, _, errors = run(*DEMO, *words)
    assert status == 2
    assert message in errors
    assert not (tmp_path / "dff-out").exists()


def test_an_explanation_is_named_in_python(run):
    result = dff.Explainer(seeded(ConvNet))(["a.png", "b.png"], concepts=2)
    named = result.named({1: "fur"})
    assert [photo.bank.names[1] for photo in named.photos] == ["fur", "fur"]
    assert result.bank.names[1] == "Concept 2"
    assert named.bank.renamed({0: "x", 1: "y"}).renamed({0: "y", 1: "x"}).names == ("y", "x")
    for wrong in ("", "12", "Concept 1"):
        with pytest.raises(UsageError, match="a name is not empty"):
            result.bank.renamed({1: wrong})


def test_a_table_beside_the_json(run, tmp_path):
    for old, new in (("a.png", "=a.png"), ("b.png", "ü,b.png")):
        (tmp_path / old).rename(tmp_path / new)
    words = ("analyze", "=a.png", "ü,b.png", "-m", "demo", "-k", "3", "--shared")
    status, printed, errors = run(*words, "--name", '2=a "b"', "--top-k", "2", "--json")
    assert status == 0, errors
    report = json.loads(printed)
    assert "dff-out/concepts.csv" in report["paths"]
    with (tmp_path / "dff-out/concepts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == [
        "image", "concept", "name", "share", "presence", "coverage", "peak_x", "peak_y",
        "label_1", "confidence_1", "label_2", "confidence_2",
    ]  # fmt: skip
    assert [(row["image"], row["concept"]) for row in rows] == [
        (image, str(k)) for image in ("'=a", "ü,b") for k in (1, 2, 3)
    ], "a spreadsheet would run a name that begins with ="
    for row, image, k in zip(rows, [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2, strict=True):
        concept, there = report["concepts"][k], report["images"][image]["concepts"][k]
        assert row["name"] == concept["name"]
        assert float(row["share"]) == there["share"]
        assert float(row["presence"]) == there["presence"]
        assert float(row["coverage"]) == there["coverage"]
        assert [float(row["peak_x"]), float(row["peak_y"])] == there["peak"]
        said = [row[f"label_{i}"] for i in (1, 2) if row[f"label_{i}"]]
        assert said == [label["name"] for label in there["labels"]]
        sure = [float(row[f"confidence_{i}"]) for i in (1, 2) if row[f"label_{i}"]]
        assert sure == pytest.approx([x["confidence"] for x in there["labels"]], abs=1e-6)
    assert rows[1]["name"] == 'a "b"'
    run(*words, "--format", "csv", "-o", "alone", "-q")
    assert {p.name for p in (tmp_path / "alone").iterdir()} == {
        "concepts.csv", ".dff-manifest.jsonl",
    }  # fmt: skip


def test_the_table_of_concepts_without_scores_and_peaks(run, tmp_path):
    result = dff.Explainer(seeded(ConvNet), score=None)("a.png", concepts=2)
    unscored = dff.Explanation(
        tuple(
            replace(photo, coefficients=photo.coefficients * 0,
                    shared=replace(photo.shared, unscored="for a test"))
            for photo in result.photos
        )
    )  # fmt: skip
    unscored.save("x", formats=["csv"])
    rows = list(csv.reader((tmp_path / "x/concepts.csv").read_text().splitlines()))
    assert rows[0][-2:] == ["peak_x", "peak_y"]
    assert rows[1][:3] == ["a", "1", "Concept 1"]
    assert rows[1][-2:] == ["", ""]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("analyze", "a.png", "-m", "demo", "-o", "x y", "--format", "arrays"),
         "next: dff analyze OTHER.jpg --bank 'x y/bank.safetensors'   (the same concepts in"),
        (("analyze", "a.png", "b.png", "-m", "demo", "--format", "json"),
         "next: dff analyze a.png b.png --model demo --shared   (concepts that the photos share)"),
        (("analyze", "a.png", "-m", "demo", "--format", "png"),
         "next: dff sweep a.png --model demo   (how many concepts there are)"),
        (("sweep", "a.png", "-m", "demo", "-k", "2:2"),
         "next: dff analyze a.png --model demo --concepts 2"),
        (("colocalize", ".", "-m", "demo", "-k", "2", "-o", "run"),
         "next: dff report run   (a page to explore the run; `dff find` shows a concept)"),
    ],
)  # fmt: skip
def test_the_next_step_is_suggested_to_people(run, monkeypatch, words, line):
    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        status, _, errors = run(*words)
        assert status == 0, errors
        assert screen.getvalue().splitlines()[-1].startswith(line)


def test_no_next_step_is_suggested_to_programs(run, monkeypatch):
    words, screen = ("analyze", "a.png", "-m", "demo", "--format", "png"), Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        for quiet in ("--quiet", "--json"):
            run(*words, quiet)
    assert "next:" not in screen.getvalue()
    assert "next:" not in run(*words)[1], "what is piped is for programs"


def test_classes_that_hold_the_word_are_suggested_first():
    names = ["crate", "coast", "tabby, tabby cat", "tiger_cat", "cat bear", "catamaran", "vat"]
    with pytest.raises(UsageError, match="did you mean 'tabby cat' or 'tiger_cat' or 'cat bear'"):
        class_index("cat", names, 7)
    with pytest.raises(UsageError, match="did you mean 'crate' or"):
        class_index("crat", names, 7)
    assert closest("dog", ["dig", "Sea Dog", "dogma"]) == (
        "; did you mean 'Sea Dog' or 'dogma' or 'dig'?"
    )
    assert closest("", ["a"]) == closest("[", ["a"]) == ""

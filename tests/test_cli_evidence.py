"""The flags of `dff analyze` that ask for evidence and checks."""

import json

import numpy as np
import pytest
from PIL import Image

from dff.cli import main
from dff.cli.reports import signed
from dff.explain.questions.check import verdict
from tests.test_cli import FACTORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and two photos."""
    path = tmp_path_factory.mktemp("evidence")
    (path / "tiny_model.py").write_text(FACTORY)
    (path / "labels.txt").write_text("cat\ndog\nhorse\nswan\n")
    for seed, name in enumerate(("one", "two")):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{name}.png")
    return path


def analyze(folder, *words):
    with pytest.raises(SystemExit) as end:
        main(["analyze", str(folder / "one.png"), str(folder / "two.png"), "--size", "32",
              "--model", f"{folder / 'tiny_model.py'}:build", "--labels",
              str(folder / "labels.txt"), "--concepts", "3", "--out", str(folder / "out"),
              "--shared", *words])  # fmt: skip
    return end.value.code or 0


def test_evidence_is_printed_and_written(folder, capsys):
    kinds = ["contributions", "ablation", "blur", "sobol", "gradient"]
    asked = [word for kind in kinds for word in ("--evidence", kind)]
    assert analyze(folder, *asked, "--target", "dog", "--versus", "swan", "--json") == 0
    images = json.loads(capsys.readouterr().out)["images"]
    written = json.loads((folder / "out" / "evidence.json").read_text())
    assert written == images
    for one in images:
        found = {e["kind"]: e for e in one["evidence"]}
        assert list(found) == kinds
        assert {e["target"] for e in found.values()} == {"dog - swan"}
        split = found["contributions"]
        total = sum(split["values"]) + split["rest"] + split["gap"]
        assert total == pytest.approx(split["logit"], abs=1e-5)
        assert abs(split["gap"]) < 1e-4
        assert found["ablation"]["values"] == pytest.approx(split["values"], abs=1e-4)
    assert analyze(folder, "--evidence", "contributions", "--evidence", "sobol") == 0
    text = capsys.readouterr().out
    assert "one: evidence for" in text
    assert "two: evidence for" in text
    for line in ("what no concept explains", "missed by the sum", "logit"):
        assert f"\n {line} " in text
    assert "-0.000" not in text
    assert "sobol: share of the logit's variance" in text
    assert analyze(folder, *asked, "--target", "dog", "--versus", "swan") == 0
    text = capsys.readouterr().out
    assert "the rest of the model is linear here, so contributions, ablation and gradient" in text
    assert "concept contributions blur sobol" in " ".join(text.split())


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0004, "0.000"), (0.0, "0.000"), (-0.0006, "-0.001"), (2.5, "+2.500")]
)
def test_no_sign_of_nothing(value, text):
    assert signed(value) == text


FIGURES = {
    "target": "cat", "concept_deletion_auc": 0.02, "concept_insertion_auc": 0.3,
    "random_deletion_auc": 0.1, "random_insertion_auc": 0.1, "pixel_deletion_auc": 0.1,
    "pixel_insertion_auc": 0.2, "logit_correlation": 0.998, "top1_agreement": 1.0,
    "contribution_gap": 1e-7, "randomized_similarity": 0.56,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "the class falls faster as the most important concepts are taken out (0.02) than in "
             "random order (0.1): they matter as they say; the concepts alone make the model say "
             "the same; with its weights shuffled"),
        ({"concept_deletion_auc": 0.1}, "no faster"),
        ({"logit_correlation": 0.7}, "the concepts alone make the model say something else"),
        ({"top1_agreement": 0.0}, "the concepts alone make the model say something else"),
        ({"contribution_gap": 0.2}, "contributions miss 20% of the logit"),
        ({"randomized_similarity": 0.9}, "the maps stay nearly the same (0.9)"),
        ({"randomized_similarity": None}, "they matter as they say; the concepts alone make the "
                                          "model say the same"),
    ],
)  # fmt: skip
def test_a_check_is_said_in_words(changed, said):
    assert said in verdict({**FIGURES, **changed})


def test_check_prints_its_figures_and_draws_curves(folder, capsys):
    assert analyze(folder, "--check") == 0
    text = capsys.readouterr().out
    for measure in ("concept deletion auc", "logit correlation", "randomized similarity"):
        assert measure in text
    assert text.count("verdict: ") == 2
    assert "near 1" in text
    for name in ("one", "two"):
        assert Image.open(folder / "out" / f"{name}_check.png").size == (720, 400)


def test_wrong_evidence_is_refused_before_any_work(folder, capsys):
    assert analyze(folder, "--evidence", "ablate") == 2
    assert "no evidence 'ablate'; did you mean 'ablation'" in capsys.readouterr().err


def test_outlines_and_evidence_are_drawn(folder):
    def drawn(*words):
        assert analyze(folder, "--format", "png", "--quiet", *words) == 0
        return {name: Image.open(folder / "out" / name).convert("RGB")
                for name in ("one_concepts.png", "two_panel.png")}  # fmt: skip

    plain, lined = drawn("--smooth"), drawn("--smooth", "--outline")
    asked = drawn("--smooth", "--evidence", "ablation", "--evidence", "gradient")
    for name, picture in plain.items():
        assert picture.tobytes() != lined[name].tobytes()
        assert picture.size == lined[name].size
        room = asked[name].width * asked[name].height
        assert picture.width * picture.height < room, "columns of bars beside the others"

"""The page of a run: what it holds of the tables, the pictures, and right against wrong."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

import dff
from dff.colocalization.evaluate import ClassResult, Evaluation
from dff.colocalization.pages import run_view, view, write_report
from dff.colocalization.pages.errors import error_tables, rightness
from dff.colocalization.pages.gallery import sampled
from dff.errors import OutputError, RunError
from dff.report import run_page
from tests.browser import data_of
from tests.colocalized import colocalize, photos, toy
from tests.test_report_photo import EVIL


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 20 photos in folders named as two of the model's classes, one of them broken."""
    root = tmp_path_factory.mktemp("run")
    data = photos(root / "data", classes=("a", "b"))
    (data / "a" / "bröken <b>.png").write_bytes(b"nothing")
    run = colocalize(data, root / "run", model=toy(), concepts=4)
    return run


@pytest.fixture(scope="module")
def data(made):
    return data_of(run_page(run_view(made)))


def test_concepts_are_those_of_the_table(made, data):
    facts = made.table("concepts").to_pylist()
    assert [c["name"] for c in data["concepts"]] == [row["name"] for row in facts]
    assert [c["images"] for c in data["concepts"]] == [row["images"] for row in facts]
    shown = data["concepts"][0]
    assert shown["crops"]
    assert shown["crops"][0].startswith("data:image/jpeg")
    assert shown["place"].startswith("data:image/png")
    together = made.table("cooccurrence").to_pylist()
    j, images, lift = shown["near"][0]
    row = next(r for r in together if (r["concept"], r["other"]) == (1, j + 1))
    assert (images, lift) == (row["images"], pytest.approx(row["lift"], abs=0.01))


def test_images_are_those_of_the_table(made, data):
    rows = [row for row in made.table("images").to_pylist() if row["status"] == "ok"]
    images = data["images"]
    assert images["ids"] == [row["id"] for row in rows]
    assert images["paths"] == [row["path"] for row in rows]
    assert [images["classes"][i] for i in images["predicted"]] == [r["predicted"] for r in rows]
    assert [images["labels"][i] for i in images["label"]] == [row["label"] for row in rows]
    assert images["right"] == [int(row["label"] == row["predicted"]) for row in rows]


def test_strengths_are_those_of_the_instances_and_0_where_not_found(made, data):
    strength = np.frombuffer(base64.b64decode(data["images"]["strength"]), np.uint8).reshape(-1, 4)
    place = {number: i for i, number in enumerate(data["images"]["ids"])}
    for row in made.table("instances").to_pylist():
        if row["image_id"] in place:
            got = strength[place[row["image_id"]], row["concept"] - 1]
            level = max(1, round(255 * min(row["strength"], 1)))
            assert abs(int(got) - (0 if row["x0"] is None else level)) <= 1


def test_thumbnails_have_their_maps_at_the_run_s_own_grid(made, data):
    assert len(data["thumbnails"]) == 20
    number, one = next(iter(data["thumbnails"].items()))
    grid = data["grid"]
    shape = (len(one["concepts"]), grid["rows"], grid["cols"])
    maps = np.frombuffer(base64.b64decode(one["maps"]), np.uint8).reshape(shape) / 255
    expected = made.maps(int(number)).float().numpy().clip(0, 1)[one["concepts"]]
    np.testing.assert_allclose(maps, expected, atol=0.003)
    for name in ("rows", "cols", "height", "width", "stride", "offset"):
        kept = made.state["grid"][name]
        assert grid[name] == (list(kept) if name in ("stride", "offset") else kept)


def test_failures_and_settings_are_said(data):
    titles = {facts["title"]: facts for facts in data["settings"]}
    assert "bröken <b>.png" in titles["Failures"]["rows"][0][0]
    assert ["concepts", "4"] in titles["Settings"]["rows"]


def test_an_evaluation_is_shown(made):
    result = ClassResult("horse", 3, 1, (1,), "Concept 2", 0.5, 0.4, None, None)
    view = run_view(made, evaluation=Evaluation(3, (result,)), images=0)
    assert view.settings[0].rows == [["horse", 3, "Concept 2", "50.0%", "-", "-"]]


def test_what_is_left_out_is_said(made, monkeypatch):
    monkeypatch.setattr(view, "MOST_IMAGES", 7)
    shown = run_view(made, images=3)
    assert len(shown.thumbnails) == 3
    assert len(shown.images.ids) == 7
    assert "7 of 20 images" in shown.left_out[0]
    assert "3 of 20 images are shown" in shown.left_out[1]


def test_images_that_have_moved_leave_the_crops_that_the_run_kept(tmp_path):
    data = photos(tmp_path / "data", 8)
    run = colocalize(data, tmp_path / "run", model=toy(), concepts=3)
    data.rename(tmp_path / "moved")
    shown = run_view(run)
    assert shown.thumbnails == {}
    assert all(concept.crops for concept in shown.concepts)
    assert "0 of 8 images are shown" in shown.left_out[-1]


def test_no_picture_beyond_the_budget(made, monkeypatch):
    monkeypatch.setattr(view, "LARGEST", 100_000)
    assert len(run_view(made).thumbnails) < 20


def test_the_page_is_the_run_s_own_and_replaces_nothing_else(made, tmp_path):
    path = made.path / "report.html"
    write_report(made, path, images=2)
    write_report(made, path, images=1)
    assert len(data_of(path.read_text())["thumbnails"]) == 1
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    with pytest.raises(OutputError, match="did not write it"):
        write_report(made, mine, images=0)


def test_names_stay_text_wherever_they_stand(made):
    from dataclasses import replace

    shown = run_view(made, images=1)
    images = replace(shown.images, paths=[EVIL] * 20, labels=[EVIL] * 20)
    page = run_page(replace(shown, title=EVIL, images=images, left_out=[EVIL]))
    assert "<img src=x" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert data_of(page)["images"]["paths"][0] == EVIL


def test_a_run_that_is_not_finished_is_refused(made, tmp_path):
    with pytest.raises(RunError, match="not a run"):
        dff.Run(tmp_path)


# Right against wrong.


def test_labels_are_matched_by_synonym_case_and_underscore():
    labels = ["Tabby_Cat", "dog", "unknown", None, "tiger-cat"]
    predicted = ["tabby, tabby cat", "tabby, tabby cat", "dog", "dog", None]
    assert rightness(labels, predicted, ["dog", "tiger cat"]) == [1, 0, -1, -1, -1]


def test_the_concept_that_is_there_where_the_model_errs_comes_first():
    right = [1] * 40 + [0] * 40
    present = np.zeros((80, 3), bool)
    present[:, 0] = True  # everywhere
    present[45:, 1] = True  # where it errs
    present[:38, 2] = True  # where it is right
    labels, predicted = ["a"] * 80, ["a"] * 40 + ["b"] * 40
    contrast, confusions = error_tables(
        right, labels, predicted, present, present * 0.5, ["Concept 1", "Concept 2", "rim"]
    )
    assert [row[0] for row in contrast.rows] == ["Concept 2", "Concept 1", "3 rim"]
    assert [row[5] for row in contrast.rows] == [
        "more often where it errs", "no clear difference", "more often where it is right",
    ]  # fmt: skip
    assert contrast.rows[0][1:4] == [0.875, 0.0, 0.875]
    assert confusions.rows == [["a", "b", 40, "Concept 2, +88% against where it is right"]]


def test_without_labels_that_are_classes_it_says_so():
    (only,) = error_tables([-1], [None], ["a"], np.ones((1, 1), bool), np.ones((1, 1)), ["x"])
    assert "No image has a label" in only.text


def test_the_sample_holds_the_best_and_the_wrong_and_is_spread():
    best, wrong = {0: [3, 5], 1: [7]}, [90, 91]
    shown = sampled(best, wrong, range(100), 12)
    assert len(shown) == 12
    assert {3, 5, 7, 90, 91, 0, 99} <= set(shown)
    assert sampled(best, wrong, range(4), 12)[:4] == [0, 1, 2, 3]


def test_a_run_may_end_with_its_report(run, tmp_path):
    photos(tmp_path / "data", 6)
    words = ("colocalize", "data", "--out", "run", "--model", "demo", "-k", 3, "-q", "--report")
    assert run(*words)[0] == 0
    assert len(data_of((tmp_path / "run/report.html").read_text())["concepts"]) == 3
    assert run(*words)[0] == 0, "and again"


def test_images_by_what_a_concept_adds_to_a_class(made, run, tmp_path):
    words = ("find", made.path, "--concept", 2, "--top", 5, "--out", tmp_path / "sheet.png")
    status, out, _ = run(*words, "--by", "contribution", "--class", "b", "--json")
    assert status == 0
    images = json.loads(out)["images"]
    scores = [row for row in made.table("scores").to_pylist() if row["concept"] == 2]
    (row,) = (row for row in scores if row["class"] == "b")
    means = {
        one["image_id"]: one["mean"] for one in made.table("instances").to_pylist()
        if one["concept"] == 2 and one["x0"] is not None
    }  # fmt: skip
    expected = sorted(means, key=lambda image: -means[image])[:5]
    assert [image["image"] for image in images] == expected
    for image in images:
        assert image["contribution"] == pytest.approx(row["worth"] * means[image["image"]])
    status, _, errors = run(*words, "--by", "contribution")
    assert status == 2
    assert "go together" in errors


def test_the_command(made, run):
    status, out, _ = run("report", made.path, "--images", 2, "--json")
    assert status == 0
    assert json.loads(out)["report"].endswith("report.html")
    status, _, errors = run("report", "nowhere")
    assert status != 0
    assert "not a run" in errors


def test_a_run_of_a_python_dataset_keeps_its_crops(tmp_path):
    rng = np.random.default_rng(0)
    dataset = [(rng.integers(0, 256, (40, 40, 3), np.uint8), i % 2) for i in range(6)]
    run = colocalize(dataset, tmp_path / "run", model=toy(), concepts=3)
    shown = run_view(run)
    assert "The images cannot be shown" in shown.left_out[0]
    assert all(concept.crops for concept in shown.concepts)

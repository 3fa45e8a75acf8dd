"""Evaluation, finding, naming, the tables about classes, the command line."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from dff.cli import main
from dff.colocalization import Run
from dff.colocalization.evaluate import evaluate
from dff.colocalization.explore import find, rename
from dff.colocalization.run.coco import annotations_of
from dff.concepts import ConceptBank
from dff.errors import RunError, UsageError
from dff.maps.rle import drawn
from tests.colocalized import colocalize, photos, small_chunks, toy


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    small_chunks(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        colocalize(photos(place / "data", 14), place / "run", model=toy(), concepts=3)
    return place / "run"


@pytest.fixture
def run(made, tmp_path):
    return Run(shutil.copytree(made, tmp_path / "run"))


def test_a_run_agrees_wholly_with_itself(run):
    result = evaluate(run, run.path / "coco.json")
    assert result.images == 14
    for one in result.classes:
        assert one.name == one.concept_name == run.bank.node_names()[one.concept]
        assert (one.corloc, one.box_iou, one.mask_iou, one.pooled_iou) == (1, 1, 1, 1)
    assert result.corloc == result.mask_iou == result.pooled_iou == 1


def test_boxes_elsewhere_are_not_found_and_masks_count_half(run, tmp_path):
    coco = json.loads((run.path / "coco.json").read_text())
    one = next(a for a in coco["annotations"] if a["bbox"][2] >= 8)
    name = next(i["file_name"] for i in coco["images"] if i["id"] == one["image_id"])
    x, y, w, h = one["bbox"]
    known = {
        "categories": [{"id": 1, "name": "thing"}],
        "images": [{"id": 5, "file_name": name.split("/")[-1], "width": 56, "height": 40}],
        "annotations": [
            {"image_id": 5, "category_id": 1, "bbox": [x + w, y, w, h]},
        ],
    }
    (tmp_path / "away.json").write_text(json.dumps(known))
    result = evaluate(run, tmp_path / "away.json")
    assert result.images == 1
    assert result.classes[0].mask_iou is None
    known["annotations"][0]["bbox"] = [x, y, w, h]
    half = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    known["annotations"][0]["segmentation"] = half
    (tmp_path / "there.json").write_text(json.dumps(known))
    result = evaluate(run, tmp_path / "there.json")
    truth = np.zeros((40, 56), bool)
    truth[y : y + h, x : x + w] = True
    overlaps = {
        a["category_id"]: (drawn(a["segmentation"]) & truth).sum()
        / (drawn(a["segmentation"]) | truth).sum()
        for a in coco["annotations"]
        if a["image_id"] == one["image_id"]
    }
    best = max(overlaps, key=overlaps.get)
    assert result.classes[0].concept == best - 1
    assert result.as_dict()["classes"][0]["concept"] == best
    assert result.classes[0].mask_iou == pytest.approx(overlaps[best], rel=1e-9)
    parts = evaluate(run, tmp_path / "there.json", level="part").classes[0]
    assert parts.concept < len(run.bank) == 3
    assert parts.members == (parts.concept,)


def test_voc_counts_pixels_from_one(run, tmp_path):
    coco = json.loads((run.path / "coco.json").read_text())
    folder = tmp_path / "VOC" / "Annotations"
    folder.mkdir(parents=True)
    for image in coco["images"]:
        objects = "".join(
            "<object><name>thing</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
            "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>".format(
                a["bbox"][0] + 1, a["bbox"][1] + 1, a["bbox"][0] + a["bbox"][2],
                a["bbox"][1] + a["bbox"][3],
            )
            for a in coco["annotations"]
            if a["image_id"] == image["id"] and a["category_id"] == 1
        )  # fmt: skip
        name = image["file_name"].split("/")[-1]
        (folder / f"{image['id']}.xml").write_text(
            f"<annotation><filename>{name}</filename><size><width>56</width><height>40</height>"
            f"</size>{objects}</annotation>"
        )
    result = evaluate(run, tmp_path / "VOC")
    assert result.classes[0].concept == 0
    assert result.classes[0].corloc == result.classes[0].box_iou == 1


def test_annotations_that_are_none(run, tmp_path):
    (tmp_path / "bad.json").write_text('{"images": 3}')
    with pytest.raises(UsageError, match="is not COCO's format"):
        evaluate(run, tmp_path / "bad.json")
    with pytest.raises(UsageError, match="there are no annotations"):
        evaluate(run, tmp_path / "nothing.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no annotation in"):
        evaluate(run, tmp_path / "empty")
    coco = json.loads((run.path / "coco.json").read_text())
    for image in coco["images"]:
        image["file_name"] = "other-" + image["file_name"].replace("/", "-")
    (tmp_path / "other.json").write_text(json.dumps(coco))
    with pytest.raises(UsageError, match="none of the run's images is annotated"):
        evaluate(run, tmp_path / "other.json")


def test_find_writes_the_best_images(run, tmp_path):
    found = find(run, 1, tmp_path / "sheet.png", top=12)
    strengths = [row["strength"] for row in found]
    assert len(found) > 2
    table = run.table("instances").to_pylist()
    mine = [r["strength"] for r in table if r["concept"] == 2 and r["x0"] is not None]
    assert max(strengths) == max(mine)
    assert strengths == sorted(strengths, reverse=True)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > (2 if len(found) > 10 else 1) * 144
    with pytest.raises(UsageError, match=r"there is no concept named 'tail', but Concept 1, "):
        find(run, "tail", tmp_path / "sheet.png")


def test_a_name_appears_everywhere(run):
    named = rename(run, 1, " striped  fur ")
    assert ConceptBank.load(run.path / "bank.safetensors").names[1] == "striped fur"
    coco = json.loads((run.path / "coco.json").read_text())
    assert coco["categories"][1] == {"id": 2, "name": "striped fur", "supercategory": "concept"}
    assert coco["annotations"]
    assert named.table("concepts")["name"][1].as_py() == "striped fur"
    assert named.concept("Striped Fur") == 1
    assert named.summary()["concepts"][1]["name"] == "striped fur"
    for wrong in ("", "7", "concept 1"):
        with pytest.raises(UsageError, match="a name is not empty"):
            rename(named, 1, wrong)


def test_concepts_count_from_0_in_python_and_from_1_on_screen(run, tmp_path, capsys):
    assert [run.concept(k) for k in range(3)] == [0, 1, 2]
    assert run.concept(np.int64(2)) == 2
    assert run.concept(run.bank.names[0]) == 0
    for wrong in (3, -1):
        with pytest.raises(UsageError, match=f"no concept {wrong}: .* from 0 to 2"):
            run.concept(wrong)
    with pytest.raises(UsageError, match="no concept named '1'"):
        run.concept("1")  # a text is a name
    for index in range(3):
        in_python = find(run, index, tmp_path / "sheet.png", top=4)
        words = ("find", run.path, "--concept", index + 1, "--top", 4)
        status, text, _ = command(capsys, *words, "--json", "--out", tmp_path / "same.png")
        assert (status, json.loads(text)["images"]) == (0, in_python)
        assert (tmp_path / "same.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
    for wrong in (0, 4):
        status, _, errors = command(capsys, "find", run.path, "--concept", wrong)
        assert status == 2
        assert f"there is no concept {wrong}: they count from 1 to 3" in errors


def test_cooccurrence_counts_images(run):
    table = run.table("instances").to_pylist()
    found = {(r["image_id"], r["concept"]) for r in table if r["x0"] is not None}
    for row in run.table("cooccurrence").to_pylist():
        both = sum((i, row["concept"]) in found and (i, row["other"]) in found for i in range(14))
        assert row["images"] == both
    labels = run.table("labels").to_pylist()
    assert {r["label"] for r in labels} == {"left", "right"}
    assert all(r["images"] == 7 and 0 <= r["prevalence"] <= 1 for r in labels)


def test_the_dataset_of_a_run_opens_again(run):
    assert len(run.dataset()) == 14
    assert np.asarray(Image.open(run.dataset().source(3))).shape == (40, 56, 3)
    with pytest.raises(UsageError, match="the run has no table 'pixels'; it has concepts"):
        run.table("pixels")
    with pytest.raises(RunError, match="is not a run"):
        Run(run.path.parent)


FACTORY = """
import torch
from tests.toys import ConvNet, seeded
def make():
    return seeded(ConvNet)
"""


def command(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_the_commands(tmp_path, capsys, monkeypatch):
    (tmp_path / "net.py").write_text(FACTORY)
    data, out = photos(tmp_path / "data", 8), tmp_path / "run"
    (data / "broken.png").write_text("no image")
    words = ["colocalize", data, "--out", out, "-k", 2, "--model", f"{tmp_path}/net.py:make",
             "--size", 32, "--layer", "layer4"]  # fmt: skip
    status, text, errors = command(capsys, *words)
    assert (status, errors) == (0, "")
    assert "1 of 9 images (11%) could not be read" in text
    assert "concepts.png" in text
    status, text, _ = command(capsys, *words, "--json")
    assert status == 0
    assert json.loads(text)["unreadable"] == 1
    assert command(capsys, *words, "--strict")[0] == 1
    status, _, errors = command(capsys, *words, "--threshold", "0.4")
    assert status == 1
    assert "masks threshold was 'auto' and is now 0.4" in errors
    assert command(capsys, "colocalize", tmp_path / "no", "--out", out)[0] == 2
    status, text, _ = command(capsys, "evaluate", out, "--annotations", out / "coco.json", "--json")
    assert json.loads(text)["corloc"] == 1
    status, text, _ = command(capsys, "find", out, "--concept", 1, "--top", 3)
    assert status == 0
    assert "find-1.png" in text
    shown = [int(line.split("%")[0]) for line in text.splitlines()[1:] if "%" in line]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 3
    assert max(shown) <= 100
    assert command(capsys, "name", out, 1, "blob")[:2] == (0, "Concept 1 is now 1 blob\n")
    monkeypatch.setattr(sys, "argv", ["dff"])
    photo = next(data.rglob("0*.png"))
    status, text, _ = command(
        capsys, "analyze", photo, "--bank", out / "bank.safetensors", "--model",
        f"{tmp_path}/net.py:make", "--size", 32, "--layer", "layer4", "--out", tmp_path / "one",
        "--json",
    )  # fmt: skip
    assert status == 0
    assert json.loads(text)["concepts"][0]["name"] == "blob"


@pytest.mark.parametrize("memory", ["4G", "10k"])  # one pass, and two
def test_a_third_of_the_images_is_broken(memory, tmp_path, capsys):
    """The run goes on without them, counts them and says so; --strict ends it."""
    (tmp_path / "net.py").write_text(FACTORY)
    data, out = photos(tmp_path / "data", 40), tmp_path / "run"
    paths = sorted(data.rglob("*.png"))
    broken = paths[::10] + paths[3::10] + paths[7::10]  # 30%
    for i, path in enumerate(broken):
        whole = path.read_bytes()
        path.write_bytes((b"", b"no image", whole[: len(whole) // 2])[i % 3])
    words = ["colocalize", data, "-k", 2, "--model", f"{tmp_path}/net.py:make", "--size", 32,
             "--layer", "layer4", "--memory", memory]  # fmt: skip
    status, text, errors = command(capsys, *words, "--out", tmp_path / "strict", "--strict")
    assert (status, text) == (1, "")
    assert "--strict; without it, the run goes on without such images" in errors
    status, text, errors = command(capsys, *words, "--out", out)
    assert (status, errors) == (0, "")
    assert "12 of 40 images (30%) could not be read: images.parquet says why" in text
    run = Run(out)
    assert run.state["exact"] is (memory == "4G")
    rows = run.table("images").to_pylist()
    wrong = {str(data / row["path"]) for row in rows if row["status"] == "error"}
    assert wrong == set(map(str, broken))
    assert all((row["error"] is None) == (row["status"] == "ok") for row in rows)
    assert len(run.table("instances")) == 28 * 2
    assert not set(run.table("instances")["image_id"].to_pylist()) & {
        row["id"] for row in rows if row["status"] == "error"
    }
    # What --strict had done before it ended is not lost, and a finished run is judged, too.
    again = [*words, "--out", tmp_path / "strict"]
    assert command(capsys, *again)[0] == 0
    assert Run(tmp_path / "strict").table("instances").equals(run.table("instances"))
    status, _, errors = command(capsys, *again, "--strict")
    assert status == 1
    assert "12 images could not be read; images.parquet names them" in errors


def test_annotations_of_a_few_images_are_found_in_a_large_file(tmp_path):
    rng, lines = np.random.default_rng(0), []
    images = np.flatnonzero(rng.random(9000) < 0.7).tolist()
    for image in images:
        for category in range(1, 1 + int(rng.integers(1, 4))):
            lines.append(json.dumps({"id": image * 3 + category, "image_id": image,
                                     "category_id": category, "area": image}))  # fmt: skip
    path = tmp_path / "coco.json"
    names = ",\n".join(json.dumps({"id": i, "file_name": f"{i}.jpg"}) for i in images)
    path.write_text(f'{{"info": {{}},\n"categories": [],\n"images": [\n{names}],\n"annotations": ['
                    "\n" + ",\n".join(lines) + "]}\n")  # fmt: skip
    whole = json.loads(path.read_text())["annotations"]
    ends = {images[0], images[-1], 8999, 9500}
    for wanted in ({*map(int, rng.integers(0, 9000, n)), *ends} for n in (1, 5, 100, 5000)):
        found = list(annotations_of(path, wanted))
        assert found == [entry for entry in whole if entry["image_id"] in wanted]
    assert list(annotations_of(path, {})) == []

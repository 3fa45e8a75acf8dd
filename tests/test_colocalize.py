"""The whole run: what is found, what lies on disk, what is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import dff
from dff.colocalization import Run, pipeline
from dff.colocalization.run import folder as run_folder
from dff.colocalization.stages.plan import parse_memory, plan
from dff.errors import OutputError, RunError, UsageError
from dff.maps import MaskOptions, box_of, masks_of
from dff.maps.rle import drawn as drawn_rle
from tests.colocalized import colocalize, digest, photos, small_chunks, toy
from tests.toys import untouched

COUNT, K = 20, 3


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    small_chunks(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"), COUNT)


@pytest.fixture(scope="module")
def explainer():
    return toy()


@pytest.fixture(scope="module")
def run(folder, explainer, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        return colocalize(
            folder, tmp_path_factory.mktemp("run"), model=explainer, concepts=K, batch=4, workers=2
        )


def test_all_files_of_a_run_are_there(run):
    names = {p.name for p in run.path.iterdir() if not p.name.startswith(".dff-")}
    assert names == {
        "run.json", "images.parquet", "bank.safetensors", "maps", "instances.parquet",
        "scores.parquet", "concepts.parquet", "labels.parquet", "cooccurrence.parquet",
        "coco.json", "exemplars", "concepts.png",
    }  # fmt: skip
    assert len(list((run.path / "maps").iterdir())) == 4
    assert run.state["exact"]
    assert run.state["counts"] == {
        "images": COUNT, "unreadable": 0, "rows": COUNT * 64,
        "instances": run.state["counts"]["instances"],
    }  # fmt: skip
    with Image.open(run.path / "concepts.png") as sheet:
        assert sheet.height > 3 * 100


def test_maps_equal_those_of_the_explainer_in_the_same_concepts(run, folder, explainer):
    paths = run.table("images")["path"].to_pylist()
    path = folder / paths[7]
    square = Image.open(path).resize((32, 32), Image.Resampling.BILINEAR)
    result = explainer(square, bank=run.bank, cam=False)
    ours = np.clip(run.maps(7).float().numpy(), 0, 1)
    assert ours.shape == (K, 8, 8)
    np.testing.assert_allclose(ours, result.maps(), atol=0.02)


def test_images_table_says_what_each_image_is(run):
    table = run.table("images").to_pydict()
    assert table["id"] == list(range(COUNT))
    assert set(table["width"]) == {56}
    assert set(table["height"]) == {40}
    assert [path.split("/")[0] for path in table["path"]] == table["label"]
    assert set(table["label"]) == {"left", "right"}
    assert all(name in "abcde" for name in table["predicted"])
    assert all(0 < p <= 1 for p in table["probability"])
    assert set(table["status"]) == {"ok"}
    assert table["error"] == [None] * COUNT


def test_instances_follow_from_the_maps(run):
    table = run.table("instances").to_pylist()
    assert len(table) == COUNT * K
    row = table[4 * K + 1]
    assert (row["image_id"], row["concept"]) == (4, 2)
    maps = run.maps(4).float().numpy()
    assert row["strength"] == pytest.approx(maps[1].max())
    assert row["mean"] == pytest.approx(maps[1].mean(), rel=1e-5)
    found = [r for r in table if r["x0"] is not None]
    assert found
    assert all(0 <= r["x0"] < r["x1"] <= 56 and 0 <= r["y0"] < r["y1"] <= 40 for r in found)
    assert all(0 < r["coverage"] <= 1 for r in found)
    assert all(r["strength"] < 0.25 for r in table if r["x0"] is None)


def test_boxes_and_masks_are_those_of_one_photo(run, folder, explainer):
    grid = explainer.grid(torch.empty(1, 8, 8), torch.empty(3, 32, 32))
    coco = json.loads((run.path / "coco.json").read_text())
    table = {(r["image_id"], r["concept"]): r for r in run.table("instances").to_pylist()}
    paths = run.table("images")["path"].to_pylist()
    concepts = [one for one in coco["annotations"] if one["category_id"] <= K]
    for one in concepts[:12]:
        image, concept = one["image_id"], one["category_id"]
        row = table[image, concept]
        photo = dff.read_image(folder / paths[image]).pixels
        maps = run.maps(image).float().numpy()
        runs, thresholds = masks_of(maps, grid, (40, 56), MaskOptions(), guide=photo)
        mask = runs[concept - 1].drawn()
        assert row["threshold"] == pytest.approx(thresholds[concept - 1], abs=0.005)
        theirs = drawn_rle(one["segmentation"])
        assert (theirs != mask).mean() < 0.01, "but for rounding where a map is flat"
        box = (row["x0"], row["y0"], row["x1"], row["y1"])
        assert box_of(theirs) == box
        assert one["bbox"] == [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        assert one["area"] == round(row["coverage"] * 40 * 56) == theirs.sum()


def test_unions_of_concepts_are_categories_after_the_concepts(run, folder, explainer, tmp_path):
    coco = json.loads((run.path / "coco.json").read_text())
    union = run.bank.unions[0]
    category = coco["categories"][K]
    assert category["supercategory"] == "union"
    assert category["name"] == " + ".join(f"Concept {k + 1}" for k in union)
    assert any(one["category_id"] == K + 1 for one in coco["annotations"])
    assert run.table("instances")["concept"].to_numpy().max() == K
    parts = colocalize(folder, tmp_path, model=explainer, concepts=K, level="part")
    there = json.loads((parts.path / "coco.json").read_text())["annotations"]
    assert there == [
        {**one, "id": one["image_id"] * K + one["category_id"]}
        for one in coco["annotations"]
        if one["category_id"] <= K
    ]
    with pytest.raises(UsageError, match="level is one of"):
        colocalize(folder, tmp_path, model=explainer, concepts=K, level="scene")


def test_other_programs_open_the_files(run):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(run.path / "instances.parquet")
    assert len(frame) == COUNT * K
    duckdb = pytest.importorskip("duckdb")
    query = f"select count(*) from '{run.path}/instances.parquet' where x0 is not null"
    assert duckdb.sql(query).fetchall()[0][0] == run.state["counts"]["instances"]
    api = pytest.importorskip("pycocotools.coco")
    coco = api.COCO(str(run.path / "coco.json"))
    assert len(coco.getImgIds()) == COUNT
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(run.bank.node_names())
    one = coco.loadAnns(coco.getAnnIds())[0]
    mask = coco.annToMask(one)
    assert mask.shape == (40, 56)
    assert mask.sum() == one["area"]


def test_contributions_add_up_to_the_logits_of_a_pooling_head(run, explainer, folder):
    """For pooling and a linear head, bias + contributions + rest is the mean logit."""
    scores = run.table("scores").to_pandas() if pytest.importorskip("pandas") else None
    images = run.table("images").to_pandas()
    index = int(images["predicted_index"].mode()[0])
    members = images[images["predicted_index"] == index]["id"]
    head = explainer.model.fc
    means = np.stack([run.maps(int(i)).float().numpy().mean((1, 2)) for i in members]).mean(0)
    parts = (run.bank.at_full_presence.numpy() @ head.weight.detach().numpy()[index]) * means
    mine = scores[scores["class_index"] == index].sort_values("concept")
    np.testing.assert_allclose(mine["mean_contribution"], parts, rtol=2e-3, atol=1e-4)
    assert (mine["images"] == len(members)).all()
    total = scores.groupby("concept")["score"].sum()
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_the_same_command_again_changes_nothing(run, folder, explainer):
    before = digest(run.path)
    again = colocalize(folder, run.path, model=explainer, concepts=K, batch=4, workers=1)
    assert digest(again.path) == before


def test_the_model_and_random_state_are_left_alone(folder, tmp_path):
    fresh = toy()
    with untouched(fresh.model):
        colocalize(folder, tmp_path, model=fresh, concepts=2)


def test_a_sample_is_fitted_where_memory_is_short(run, folder, explainer, tmp_path):
    memory = 8 * COUNT * 12 * 4  # 8 of 64 cells an image
    small = colocalize(folder, tmp_path, model=explainer, concepts=K, memory=memory, batch=4)
    assert not small.state["exact"]
    assert small.state["counts"]["rows"] == 8 * COUNT
    assert small.table("images").drop(["probability"]) == run.table("images").drop(["probability"])
    likeness = torch.nn.functional.normalize(small.bank.components, dim=1) @ (
        torch.nn.functional.normalize(run.bank.components, dim=1).T
    )
    assert likeness.max(1).values.min() > 0.7


def test_plans_are_uniform_and_within_memory():
    one = plan(1000, 49, 64, memory=4 * 64 * 10_000, seed=3)
    assert not one.exact
    assert one.per_image == 10
    assert len(one.chosen) == 1000
    cells = np.bincount(np.concatenate([one.cells_of(i) for i in range(1000)]), minlength=49)
    assert cells.min() > 140
    assert cells.max() < 270
    few = plan(1000, 49, 64, memory=4 * 64 * 800, seed=3)
    assert few.per_image == 8
    assert len(few.chosen) == 100
    assert plan(1000, 49, 64, memory=4 * 64 * 49_000, seed=3).exact


@pytest.mark.parametrize(
    ("text", "value"),
    [("4G", 2**32), ("500 MB", 500 * 2**20), (17, 17), ("1.5GiB", 3 * 2**29), ("2000", 2000)],
)
def test_memory_sizes(text, value):
    assert parse_memory(text) == value


@pytest.mark.parametrize("text", ["", "much", "-1G", 0, "4X"])
def test_memory_sizes_that_are_none(text):
    with pytest.raises(UsageError, match="memory is a size such as 4G"):
        parse_memory(text)


def test_changed_settings_are_refused_and_named(run, folder, explainer):
    before = digest(run.path)
    with pytest.raises(RunError, match=r"concepts was 3 and is now 4.*--force"):
        colocalize(folder, run.path, model=explainer, concepts=4, batch=4)
    with pytest.raises(RunError, match=r"masks threshold was 'auto' and is now 0.5"):
        colocalize(folder, run.path, model=explainer, concepts=K, batch=4, threshold=0.5)
    with pytest.raises(RunError, match=r"model weights was"):
        colocalize(folder, run.path, model=toy(seed=1), concepts=K, batch=4)
    assert digest(run.path) == before


def test_force_starts_over(folder, explainer, tmp_path):
    colocalize(folder, tmp_path / "a", model=explainer, concepts=2)
    forced = colocalize(folder, tmp_path / "a", model=explainer, concepts=4, force=True)
    fresh = colocalize(folder, tmp_path / "b", model=explainer, concepts=4)
    assert digest(forced.path) == digest(fresh.path)


def test_a_folder_of_other_things_is_refused(folder, explainer, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match=r"is not a run: it holds thesis\.tex"):
        colocalize(folder, tmp_path, model=explainer, concepts=2)
    with pytest.raises(UsageError, match="holds what is read"):
        colocalize(folder, folder, model=explainer, concepts=2)


def test_a_run_of_another_version_is_refused(folder, explainer, tmp_path, monkeypatch):
    alien = tmp_path / "alien"
    alien.mkdir()
    (alien / "run.json").write_text('{"format": 99, "version": "7.0"}')
    for force in (False, True):  # nothing proves that this program wrote it
        with pytest.raises(RunError, match=r"another version \(made by 7\.0\)"):
            colocalize(folder, alien, model=explainer, concepts=2, force=force)
    with pytest.raises(RunError, match="another version"):
        Run(alien)
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "FORMAT", 99)
        colocalize(folder, tmp_path / "old", model=explainer, concepts=2)
    with pytest.raises(RunError, match=r"another version .* or give --force"):
        colocalize(folder, tmp_path / "old", model=explainer, concepts=2)
    forced = colocalize(folder, tmp_path / "old", model=explainer, concepts=2, force=True)
    assert len(forced.bank) == 2


def test_two_processes_on_one_run(folder, explainer, tmp_path):
    with (tmp_path / ".dff-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process is at work in"):
            colocalize(folder, tmp_path, model=explainer, concepts=2)


def test_a_full_disk_is_said_and_the_run_goes_on_later(folder, explainer, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    real, calls = os.link, []

    def link(source, target):
        calls.append(target)
        if "maps" in str(target) and len(calls) > 12:
            raise full
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        with pytest.raises(OutputError, match=r"No space left on device; free some space"):
            colocalize(folder, tmp_path / "a", model=explainer, concepts=2)
    with pytest.raises(RunError, match=r"is not finished \(encode is to do\)"):
        Run(tmp_path / "a")
    resumed = colocalize(folder, tmp_path / "a", model=explainer, concepts=2)
    fresh = colocalize(folder, tmp_path / "b", model=explainer, concepts=2)
    assert digest(resumed.path) == digest(fresh.path)


def test_more_concepts_than_the_layer_holds(folder, explainer, tmp_path):
    with pytest.raises(UsageError, match=r"13 concepts were asked for.*12 channels"):
        colocalize(folder, tmp_path, model=explainer, concepts=13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concepts": 0}, "whole number from 1"),
        ({"threshold": 1.5}, "threshold is 'auto', 'otsu', 'peak' or a number"),
        ({"components": "some"}, "components is 'largest' or 'all'"),
        ({"least": 0}, "least presence lies in"),
        ({"precision": "int8"}, "precision is one of"),
        ({"batch": 0}, "batch and workers are 1 or more"),
        ({"memory": "2k"}, "holds .* rows"),
    ],
)
def test_options_that_cannot_be(options, message, folder, explainer, tmp_path):
    with pytest.raises(UsageError, match=message):
        colocalize(folder, tmp_path, **{"model": explainer, "concepts": 2, **options})


def test_refined_and_whole_masks(folder, explainer, tmp_path):
    refined = colocalize(folder, tmp_path / "a", model=explainer, concepts=2, refine=False)
    whole = colocalize(
        folder, tmp_path / "b", model=explainer, concepts=2, components="all", threshold=0.4
    )
    for one in (refined, whole):
        coco = json.loads((one.path / "coco.json").read_text())
        assert coco["annotations"]
    rows = whole.table("instances").to_pylist()
    assert all(r["threshold"] == pytest.approx(0.4) for r in rows)


def test_signed_activations_are_semi_factorized(folder, tmp_path):
    signed = toy(relu=False)
    result = colocalize(folder, tmp_path, model=signed, concepts=3)
    assert result.bank.signed
    assert float(result.bank.components.min()) < 0
    assert float(load_file(tmp_path / "maps" / "00000.safetensors")["maps"].min()) >= 0


def test_python_names():
    assert dff.colocalize is pipeline.colocalize
    assert dff.Run is Run


@pytest.mark.parametrize("counts", ["auto", range(2, 6)])
def test_the_number_of_concepts_is_chosen_on_the_sample(folder, tmp_path, counts):
    explainer = toy(channels=6)  # of which no more concepts can be told apart
    run = colocalize(folder, tmp_path / "run", model=explainer, concepts=counts)
    found = run.selection
    assert (
        found["counts"]
        == list(range(2, 13) if counts == "auto" else counts)[: len(found["counts"])]
    )
    assert len(run.bank) == found["chosen"]
    assert found["chosen"] in found["counts"]
    assert "found again in other data" in found["reason"]
    assert [len(parents) for parents in found["parents"]] == found["counts"][1:]
    with Image.open(run.path / "selection.png") as curve:
        assert curve.width > 200
    assert run.summary()["selection"] == found
    assert run.maps(0).shape[0] == found["chosen"]
    given = colocalize(folder, tmp_path / "given", model=explainer, concepts=found["chosen"])
    assert given.selection is None
    again = colocalize(folder, tmp_path / "run", model=explainer, concepts=counts)
    assert again.state["settings"] == run.state["settings"]


def test_numbers_of_concepts_that_cannot_be_chosen_from(folder, explainer, tmp_path):
    for wrong in (range(0, 3), range(3, 3), "many", 0, True):
        with pytest.raises(dff.errors.UsageError, match="a whole number from 1 on, a range, or"):
            colocalize(folder, tmp_path / "run", model=explainer, concepts=wrong)
    assert not (tmp_path / "run").exists()

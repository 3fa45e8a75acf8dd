"""The benchmark on real masks: its figures by hand, its rules, and a run on drawn creatures."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pytorch_grad_cam")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SIZE = 128


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def scores() -> ModuleType:
    import mask_scores

    return mask_scores


@pytest.fixture(scope="module")
def creatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn creatures with masks, laid out as the horses are."""
    from dff.demo.creatures import render
    from dff.maps.rle import to_rle
    from dff.maps.runs import runs_of

    data = tmp_path_factory.mktemp("creatures")
    (data / "images").mkdir()
    images, annotations = [], []
    for i in range(1, 7):
        scene = render(300_000 + i, size=SIZE)
        mask = np.logical_or.reduce(list(scene.parts.values()))
        Image.fromarray(scene.image).save(data / "images" / f"{i}.png")
        runs = runs_of(mask)
        x0, y0, x1, y1 = runs.box
        images.append({"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE})
        box = [x0, y0, x1 - x0, y1 - y0]
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box,
                            "segmentation": to_rle(runs)})  # fmt: skip
    content = {"images": images, "annotations": annotations,
               "categories": [{"id": 1, "name": "creature"}]}  # fmt: skip
    (data / "annotations.json").write_text(json.dumps(content))
    return data


def photo_of(truth: np.ndarray):
    """Return a photo of which only the mask is known."""
    from masked_photos import Photo

    from dff.colocalization.annotations import Known
    from dff.colocalization.annotations.records import Segmentation
    from dff.maps.rle import to_rle
    from dff.maps.runs import runs_of

    runs = runs_of(truth)
    known = Known("a.png", truth.shape[1], truth.shape[0])
    known.masks["thing"] = [Segmentation("by hand", to_rle(runs))]
    known.boxes["thing"] = [tuple(map(float, runs.box))]
    return Photo(Path("a.png"), known)


def block(top: int, bottom: int, left: int, right: int, shape: tuple[int, int] = (8, 10)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_iou_and_corloc_by_hand(scores: ModuleType) -> None:
    from dff.maps.runs import runs_of

    photos = [photo_of(block(2, 6, 2, 6)), photo_of(block(0, 4, 0, 4))]
    half = block(2, 6, 4, 8)  # 8 pixels in common of 24: boxes 1/3 as well
    two = block(0, 4, 0, 3) | block(7, 8, 9, 10)  # the box is that of the larger piece, 12 of 16
    masks = [[runs_of(half), runs_of(photos[0].truth)], [runs_of(two), runs_of(block(0, 0, 0, 0))]]
    found = scores.measure(masks, photos)
    np.testing.assert_allclose(found.masks, [[8 / 24, 1], [12 / 17, 0]])
    np.testing.assert_allclose(found.boxes, [[8 / 24, 1], [12 / 16, 0]])
    assert found.concept == 0
    assert found.iou == pytest.approx((8 / 24 + 12 / 17) / 2)
    assert found.corloc == 0.5


def test_segments_by_hand(scores: ModuleType) -> None:
    maps = np.array([[[0.9, 0.9, 0.2]], [[0.5, 0.8, 0.1]]])
    masks = np.array([[[False, True, False]], [[True, True, False]]])
    assert scores.segments(maps, masks).tolist() == [[2, 1, 0]]


def test_agreement_is_whole_for_the_truth_and_none_for_everything(scores: ModuleType) -> None:
    from dff.maps import Grid
    from dff.maps.runs import runs_of

    truth = block(8, 24, 8, 24, shape=(40, 48))
    photos, grid = [photo_of(truth)], Grid.tiled(5, 6, 40, 48)
    maps = [np.ones((1, 5, 6), np.float32)]
    assert scores.agreement(maps, grid, [[runs_of(truth)]], photos) == pytest.approx((1, 1))
    everything = scores.agreement(maps, grid, [[runs_of(np.ones_like(truth))]], photos)
    assert everything == pytest.approx((0, 0))


def test_the_best_rule_is_chosen_for_either_figure(scores: ModuleType) -> None:
    by_rule = {
        "a": scores.Scores(np.array([[0.9], [0.1]]), np.array([[0.9], [0.1]])),
        "b": scores.Scores(np.array([[0.4], [0.5]]), np.array([[0.6], [0.6]])),
    }
    assert scores.best(by_rule) == ("a", "b")


def two_regions() -> np.ndarray:
    """Features (12, 12, 8) of both signs: a 4 x 5 object on a background that varies."""
    generator = np.random.default_rng(0)
    features = 0.3 * generator.standard_normal((12, 12, 8))
    inside = block(3, 7, 4, 9, shape=(12, 12))
    features[inside, 0] += 4
    features[~inside, 0] -= 4
    return features


@pytest.mark.parametrize("rule", ["lost", "token_cut"])
def test_one_object_rules_find_the_object(rule: str) -> None:
    import one_object

    np.testing.assert_array_equal(
        getattr(one_object, rule)(two_regions()), block(3, 7, 4, 9, shape=(12, 12))
    )


def test_one_object_rules_keep_the_piece_that_holds_the_seed() -> None:
    import one_object

    features = two_regions()
    features[10, 1] = features[4, 5]  # one more cell like the object, far from it
    assert not one_object.lost(features)[10, 1]
    assert one_object.lost(features).sum() == 20


def test_peers_keep_the_data_and_give_no_negative_coefficient() -> None:
    import concept_peers

    a = np.random.default_rng(0).standard_normal((3, 4, 5, 8)).astype(np.float32)
    before = a.copy()
    for name, peer in concept_peers.peers_of(a).items():
        coefficients = peer(a, 2)
        assert coefficients.shape[:-1] == (3, 4, 5), name
        assert coefficients.shape[-1] == (4 if "PCA" in name else 2), name
        assert coefficients.min() >= 0, name
    np.testing.assert_array_equal(a, before)


def test_unit_cells_weigh_all_cells_alike_and_scale_back() -> None:
    import concept_peers

    def first_channel(a: np.ndarray, k: int) -> np.ndarray:
        return a[..., :1]

    a = np.array([[[3.0, 4.0], [0.0, 0.0]]])
    seen = concept_peers.on_unit_cells(first_channel)(a, 1)
    np.testing.assert_allclose(seen, [[[3.0], [0.0]]])


def test_a_run_and_its_figures_are_those_of_evaluate(creatures: Path, tmp_path: Path) -> None:
    import real_masks
    from mask_scores import levels_of, measure
    from masked_photos import MODELS, activations, paths_of, read_photos

    import dff

    photos, explainer = read_photos(creatures), MODELS["demo"].load(creatures)
    run = dff.colocalize(paths_of(photos), tmp_path / "run", model=explainer, concepts=3)
    found = measure(real_masks.run_masks(run, photos), photos)
    for result in levels_of(run, creatures / "annotations.json").values():
        assert found.masks.mean(0)[result.concept] == pytest.approx(result.mask_iou)
        assert (found.boxes >= 0.5).mean(0)[result.concept] == pytest.approx(result.corloc)
    data = activations(explainer, photos)
    rows = torch.from_numpy(data.values.reshape(-1, data.values.shape[-1]))
    codes = run.bank.encode(rows).numpy().reshape(*data.values.shape[:3], 3)
    row = real_masks.score(real_masks.Row("demo", 3, "", None, None), codes, data, photos)
    assert row.iou == pytest.approx(max(found.masks.mean(0)[:3]), abs=2e-3)


def test_the_table(creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import real_masks

    arguments = [str(creatures), "--data", str(creatures), "--models", "demo", "--images", "2"]
    real_masks.main([*arguments, "--concepts", "2", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    methods = {row["method"] for row in rows}
    assert {
        "**ours, part level**",
        "**ours, object level**",
        "PCA",
        "PCA, unit cells",
        "LOST",
        "TokenCut",
    } <= methods
    for row in rows:
        assert 0 <= row["iou"] <= (row["best_iou"] or 1) <= 1, row
        assert 0 <= row["corloc"] <= (row["best_corloc"] or 1) <= 1, row
    assert "torch" in capsys.readouterr().out
    real_masks.main([*arguments, "--concepts", "2", "--resolution"])
    printed = capsys.readouterr().out
    assert "size doubled" in printed
    assert "fine 2 | 63 x 63" in printed


def test_photos_are_spread_over_the_set(creatures: Path) -> None:
    from masked_photos import read_photos

    def names(**options: int) -> list[str]:
        return [photo.path.stem for photo in read_photos(creatures, **options)]

    assert names() == list("123456")
    assert names(count=3) == list("135")
    assert names(count=2, start=2) == list("35")


def davis(place: Path) -> Path:
    """Two sequences laid out as DAVIS is; the second shows nothing in its second frame."""
    for name, tops in (("swan", (2, 4, 6, 8)), ("goat", (3, None, 5))):
        for part in ("JPEGImages", "Annotations"):
            (place / part / "480p" / name).mkdir(parents=True)
        for i, top in enumerate(tops):
            mask = np.zeros((24, 32), np.uint8)
            if top is not None:
                mask[top : top + 5, 4:12] = 255
            picture = np.dstack([mask, mask // 2, np.full_like(mask, 40)])
            Image.fromarray(picture).save(place / "JPEGImages/480p" / name / f"{i:05d}.jpg")
            Image.fromarray(mask).save(place / "Annotations/480p" / name / f"{i:05d}.png")
    return place


def test_davis_as_folders_and_as_one(tmp_path: Path) -> None:
    from masked_folders import main
    from masked_photos import folders_of, read_photos

    source = davis(tmp_path / "davis")
    main(["davis", str(source), str(tmp_path / "each"), "--frames", "2"])
    assert [folder.name for folder in folders_of(tmp_path / "each")] == ["goat", "swan"]
    swan = read_photos(tmp_path / "each/swan")
    assert [photo.path.name for photo in swan] == ["swan-00000.jpg", "swan-00002.jpg"]
    np.testing.assert_array_equal(swan[1].truth, block(6, 11, 4, 12, shape=(24, 32)))
    assert swan[1].boxes == [(4, 6, 12, 11)]
    assert swan[1].path.read_bytes() == (source / "JPEGImages/480p/swan/00002.jpg").read_bytes()
    main(["davis", str(source), str(tmp_path / "all"), "--together"])
    assert len(read_photos(tmp_path / "all")) == 6, "the frame without a thing is left out"
    with pytest.raises(SystemExit, match="exists already"):
        main(["davis", str(source), str(tmp_path / "all"), "--together"])
    with pytest.raises(SystemExit, match="expected JPEGImages/480p"):
        main(["davis", str(tmp_path / "all"), str(tmp_path / "none")])


def test_coco_by_category(creatures: Path, tmp_path: Path) -> None:
    from masked_folders import main
    from masked_photos import folders_of, read_photos

    content = json.loads((creatures / "annotations.json").read_text())
    content["categories"] += [{"id": 2, "name": "big dog"}, {"id": 3, "name": "cat"}]
    for entry, category in zip(content["annotations"], (2, 2, 2, 1, 1, 3), strict=True):
        entry["category_id"] = category
    content["annotations"].append({**content["annotations"][5], "id": 7, "category_id": 2})
    (tmp_path / "instances.json").write_text(json.dumps(content))
    main(["coco", str(tmp_path / "instances.json"), str(creatures / "images"),
          str(tmp_path / "out"), "--least", "2"])  # fmt: skip
    assert [folder.name for folder in folders_of(tmp_path / "out")] == ["big-dog", "creature"]
    names = [photo.path.name for photo in read_photos(tmp_path / "out/big-dog")]
    assert names == ["1.png", "2.png", "3.png", "6.png"]


def test_means_over_folders() -> None:
    from real_masks import Row, means

    rows = [
        Row("m", 4, "ours", 0.6, 0.5, data="a"), Row("m", 4, "PCA", 0.5, 1.0, 0.7, data="a"),
        Row("m", 4, "ours", 0.2, 0.5, data="b"), Row("m", 4, "PCA", 0.4, 0.0, 0.5, data="b"),
    ]  # fmt: skip
    ours, pca = means(rows)
    assert (ours.iou, ours.corloc, ours.best_iou, ours.first) == (0.4, 0.5, None, 0.5)
    assert pca.iou == pytest.approx(0.45)
    assert pca.best_iou == pytest.approx(0.6)
    assert (ours.method, pca.method, pca.first, pca.data) == ("ours", "PCA", 0.5, "2 folders")


def test_dings_updates_lower_the_loss_of_k_means() -> None:
    from nmf import loss
    from semi_nmf_check import ding, problem
    from sklearn.cluster import KMeans

    a = problem(0, signed=True)
    clusters = KMeans(4, n_init=1, random_state=0).fit(a)
    hard = loss(a, np.eye(4, dtype=np.float32)[clusters.labels_], clusters.cluster_centers_)
    codes, components = ding(a, clusters.labels_, 4)
    assert codes.min() >= 0
    assert loss(a, codes, components) < 0.9 * hard

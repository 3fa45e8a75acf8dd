"""A comparison's passes, where its maps lie, what is measured of them, and pixels of concepts."""

import numpy as np
import pytest
import torch

import dff
import gradcam
from dff.comparing import compare
from dff.comparing.asking import PhotoMethods
from dff.errors import UsageError
from dff.maps import rescale, upsample
from dff.metrics import METRICS, score_maps
from tests.toys import ConvNet, seeded

SAMPLE = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8)
FAMILY = sorted({*gradcam.METHODS} - {"legrad", "fullgrad"})


@pytest.fixture(scope="module")
def ready():
    prep = dff.Preprocessing(size=32, mean=0.5, std=0.5, fixed=True)
    return dff.Explainer(seeded(ConvNet, seed=1), layer="layer4", preprocessing=prep)


def asking(block, explainer, **settings):
    classes = [score.index for score in block.classes]
    return PhotoMethods(explainer, block.photo, classes, settings, 16, lambda _: None)


# Where maps lie.


def test_cells_of_the_cam_family_lie_where_the_layers_do(ready):
    """Every 4 pixels from the first one on: the last 3 pixels are beyond the last cell's centre."""
    found = compare(SAMPLE[0], model=ready, methods=FAMILY, classes=2, concepts=2)
    photo = found.blocks[0].photo
    assert photo.layer_grid.offset == (0.5, 0.5)
    assert photo.layer_grid.shape == (8, 8)
    for name in FAMILY:
        maps = found.maps(name)
        assert np.ptp(maps), name
        for edge in (maps, maps.transpose(0, 2, 1)):
            np.testing.assert_allclose(edge[..., -1], edge[..., -3], rtol=1e-5, err_msg=name)
            assert np.abs(edge[..., 0] - edge[..., 1]).max() > 1e-3 * maps.max(), name


def test_grad_cam_lies_alike_in_both_panels(ready):
    found = compare(SAMPLE[0], model=ready, methods=["gradcam"], classes=[2], concepts=2)
    photo = ready(SAMPLE[0], concepts=2).photos[0]
    cells = photo.cam_cells(2).numpy()
    placed = upsample(cells, (32, 32), photo.layer_grid)
    np.testing.assert_allclose(found.maps("gradcam")[0], placed, atol=1e-6)
    np.testing.assert_allclose(photo.cam(2, (32, 32)), rescale(placed), atol=1e-6)
    assert np.abs(placed - upsample(cells, (32, 32))).max() > 0.05 * placed.max()


def test_a_grid_places_what_score_cam_shows_the_model(ready):
    """With the grid, a channel masks the pixels that it lies on."""
    x, grid = ready(SAMPLE[0], concepts=2).photos[0].image[None], ready(SAMPLE[0]).photos[0].grid
    shown = []
    handle = ready.model.register_forward_hook(lambda _, inputs, __: shown.append(inputs[0]))
    gradcam.ScoreCAM(ready.model, "layer4", grid=grid)(x, [0])
    handle.remove()
    masks = torch.cat(shown[1:]) / x
    assert torch.allclose(masks[..., -1], masks[..., -3], atol=1e-4)


# One pass.


def test_methods_and_classes_share_a_pass(ready):
    runs, said = [], []
    handle = ready.model.register_forward_hook(lambda *_: runs.append(True))
    methods = ["gradcam", "saliency", "layercam", "gradcam++", "eigencam", "hirescam"]
    pytest.importorskip("captum")
    compare(SAMPLE[0], model=ready, methods=["gradcam"], classes=1, concepts=2)
    alone, _ = len(runs), runs.clear()
    compare(SAMPLE[0], model=ready, methods=["saliency"], classes=3, concepts=2)
    other, _ = len(runs), runs.clear()
    compare(SAMPLE[0], model=ready, methods=["concepts"], classes=3, concepts=2)
    explained, _ = len(runs), runs.clear()
    found = compare(
        SAMPLE[0], model=ready, methods=methods, classes=3, concepts=2, progress=said.append
    )
    handle.remove()
    assert len(runs) == alone + other - explained
    assert [row.method for row in found.blocks[0].rows] == methods
    assert all(row.seconds > 0 for row in found.blocks[0].rows)
    assert [line for line in said if "cam" in line] == [
        f"image: {name}" for name in ("gradcam", "layercam", "gradcam++", "eigencam", "hirescam")
    ]
    alone = compare(SAMPLE[0], model=ready, methods=["layercam"], classes=3, concepts=2)
    np.testing.assert_allclose(found.maps("layercam"), alone.maps("layercam"), atol=1e-6)


# Metrics.


def test_a_comparison_measures_the_maps_that_it_draws(ready):
    names = ["deletion", "drop", "road", "coherency", "adcc"]
    found = compare(
        list(SAMPLE), model=ready, methods=["gradcam", "eigencam"], classes=2, concepts=2,
        metrics=names,
    )  # fmt: skip
    block = found.blocks[1]
    row, photo = block.rows[0], block.photo
    cam = gradcam.GradCAM(ready.model, "layer4", normalise=False, grid=photo.layer_grid)
    expected = score_maps(
        ready.model, photo.image.expand(2, -1, -1, -1), row.maps,
        [score.index for score in block.classes], metrics=names, explain=cam,
    )  # fmt: skip
    assert list(row.metrics) == names
    for name, values in expected.items():
        assert row.metrics[name] == pytest.approx(values, abs=1e-5), name
    (means,) = found.metrics
    each = [block.rows[0].metrics["deletion"] for block in found.blocks]
    assert means["gradcam"]["deletion"] == pytest.approx(np.mean(each))
    assert row.as_dict()["metrics"]["drop"] == pytest.approx(row.metrics["drop"], abs=1e-6)
    with pytest.raises(UsageError, match="no metric 'rode'; did you mean 'road'"):
        compare(SAMPLE[0], model=ready, methods=["gradcam"], metrics=["rode"])


def test_metrics_are_columns_of_the_table(ready, tmp_path):
    found = compare(
        SAMPLE[0], model=ready, methods=["gradcam", "layercam"], classes=2, concepts=2,
        metrics=["drop", "complexity"],
    )  # fmt: skip
    found.save(tmp_path, formats=["csv"])
    head, *rows = (tmp_path / "compare.csv").read_text().splitlines()
    assert head.endswith("seconds,drop,complexity")
    written = [float(row.split(",")[-1]) for row in rows]
    expected = [value for row in found.blocks[0].rows for value in row.metrics["complexity"]]
    assert written == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "method", ["concepts", "concept-pixels", "gradcam", "scorecam", "fullgrad", "saliency"]
)
def test_a_method_asked_again_about_the_photo_says_the_same(ready, method):
    pytest.importorskip("captum")
    found = compare(SAMPLE[0], model=ready, methods=[method], classes=2, concepts=3)
    block = found.blocks[0]
    ask = asking(block, ready)
    again = ask.again(method, torch.stack([block.photo.image] * 2), ask.classes)
    tolerance = 0.05 if method == "concepts" else 1e-4  # factorized there, encoded here
    maps = found.maps(method)
    assert np.abs(again - maps).max() < tolerance * np.abs(maps).max()


def test_the_command_prints_a_table_of_methods_and_metrics(run):
    words = ["compare", "a.png", "b.png", "--model", "demo", "--size", 64, "--methods", "gradcam"]
    status, printed, errors = run(*words, "--metrics", "--format", "json")
    assert status == 0, errors
    assert "less is better of deletion" in printed
    line = next(line for line in printed.splitlines() if "insertion" in line)
    assert all(name in line for name in METRICS), "a table is as wide as it is"


# Pixels of concepts.


def test_the_pixels_of_the_concept_that_adds_most(ready):
    pytest.importorskip("captum")
    settings = {"concept-pixels": {"of": "input-x-gradient"}}
    found = compare(
        SAMPLE[0], model=ready, methods=["concept-pixels", "gradcam"], classes=3, concepts=3,
        settings=settings,
    )  # fmt: skip
    block = found.blocks[0]
    classes = [score.index for score in block.classes]
    split = block.explanation.contributions(classes)
    strongest = split.values.argmax(1).tolist()
    expected = block.explanation.pixels(strongest, "input-x-gradient").values.sum(1).numpy()
    np.testing.assert_allclose(found.maps("concept-pixels"), expected, atol=1e-6)
    row = block.rows[0]
    assert row.captions == tuple(f"Concept {k + 1}" for k in strongest)
    assert row.as_dict()["captions"] == list(row.captions)
    assert row.settings["of"] == "input-x-gradient"
    assert found.panel().height > 100
    assert block.rows[1].captions == ()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"of": "gradcam"}, "there is no method 'gradcam'"),
        ({"of": "occlusion", "n_steps": 4}, "n_steps"),
        ({"windo": 4}, "windo"),
    ],
)
def test_wrong_settings_of_pixels(ready, settings, match):
    pytest.importorskip("captum")
    with pytest.raises(UsageError, match=match):
        compare(
            SAMPLE[0], model=ready, methods=["concept-pixels"],
            settings={"concept-pixels": settings},
        )  # fmt: skip

"""Maps on a finer grid, by shift-and-stitch."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

import dff
from dff.activations import stitched
from dff.colocalization.stages.network import Network
from dff.errors import RunError, UsageError
from dff.maps import Grid
from dff.models import LoadedModel
from tests.colocalized import colocalize, digest, photos
from tests.toys import ConvNet, images, seeded

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25)


class Patches(nn.Module):
    """Patches of 8 pixels, a ReLU, and a pooling-and-linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 8, stride=8)
        self.layer4 = nn.ReLU()
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.layer4(self.patch(x)).mean((2, 3)))


def explainer(fine=1):
    return dff.Explainer(seeded(ConvNet), layer="layer4", preprocessing=PREP).finer(fine)


@pytest.fixture
def photo():
    """Two coloured fields on noise, square."""
    pixels = np.random.default_rng(0).integers(0, 80, (32, 32, 3)).astype(np.uint8)
    pixels[4:18, 4:14] = (250, 20, 10)
    pixels[18:30, 16:30] = (10, 30, 250)
    return pixels


@pytest.mark.parametrize(("fine", "shape"), [(2, (32, 48)), (4, (24, 24)), (8, (16, 24))])
def test_stitched_patches_are_those_of_the_finer_stride(fine, shape):
    patch, x = seeded(Patches).patch, images(2, 3, *shape)
    with torch.no_grad():
        maps = patch(x)
        grid = Grid.tiled(*maps.shape[2:], *shape)
        result = stitched(maps, x, grid, fine, patch)
        expected = conv2d(x, patch.weight, patch.bias, stride=8 // fine)
    torch.testing.assert_close(result, expected)
    assert grid.finer(fine).shape == tuple(expected.shape[2:])
    assert torch.equal(result[:, :, ::fine, ::fine], maps)


def test_padded_kernels_are_stitched_too_away_from_the_border():
    layer = nn.Conv2d(3, 4, 3, stride=4, padding=1)
    x = images(1, 3, 33, 33)
    with torch.no_grad():
        result = stitched(layer(x), x, Grid.anchored(9, 9, 33, 33, (4.0, 4.0)), 2, layer)
        expected = conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    # The cells before the second of the coarse grid see padding where the photo was shifted out.
    torch.testing.assert_close(result[:, :, 2:, 2:], expected[:, :, 2:, 2:])


def test_shifts_are_whole_pixels_where_the_stride_does_not_divide():
    seen = []
    x = torch.arange(16.0).expand(1, 1, 16, 16)

    def run(shifted):
        seen.append(int(shifted[0, 0, 0, 0]))
        return shifted[:, :, ::8, ::8]

    stitched(run(x), x, Grid.tiled(2, 2, 16, 16), 3, run)
    assert sorted(set(seen)) == [0, 3, 5]


def test_the_input_is_left_as_it_is_and_reflected_at_its_end():
    x = images(1, 1, 6, 6)
    before, seen = x.clone(), []

    def run(shifted):
        seen.append(shifted)
        return shifted[:, :, ::3, ::3]

    stitched(run(x), x, Grid.tiled(2, 2, 6, 6), 3, run)
    assert torch.equal(x, before)
    rows, cols = [2, 3, 4, 5, 4, 3], [1, 2, 3, 4, 5, 4]
    assert any(torch.equal(s, x[:, :, rows][:, :, :, cols]) for s in seen)


def test_a_finer_grid_keeps_its_first_and_last_cell_and_its_field():
    grid = Grid.anchored(4, 5, 97, 129, (32.0, 32.0), field=20.0)
    finer = grid.finer(4)
    assert (finer.shape, finer.stride, finer.offset) == ((13, 17), (8.0, 8.0), grid.offset)
    assert finer.field == 20.0
    assert grid.finer(1) is grid


@pytest.mark.parametrize("where", [(16, 20), (20, 16), (21, 28)])
def test_a_bright_patch_is_where_the_fine_map_says(where):
    """A spot between the cells of the coarse grid is found to the pixels of the fine one."""
    top, left = where
    pixels = np.full((64, 64, 3), 20, np.uint8)
    pixels[top : top + 8, left : left + 8] = 255
    model = seeded(Patches)
    nn.init.constant_(model.patch.weight, 1 / 192), nn.init.zeros_(model.patch.bias)
    prep = dff.Preprocessing(size=64, mean=0, std=1)
    ready = dff.Explainer(model, layer="layer4", preprocessing=prep).finer(8)
    photo = ready(pixels, concepts=1).photos[0]
    peak = divmod(int(photo.coefficients[0].argmax()), photo.grid.cols)
    centre = [photo.grid.offset[i] + peak[i] * photo.grid.stride[i] for i in range(2)]
    assert centre == [top + 4, left + 4]


def test_classes_scores_and_cam_are_those_of_the_photo_as_it_is(photo):
    ready = explainer()
    finer = ready.finer(2)
    assert (ready.fine, finer.fine) == (1, 2)
    plain = ready(photo, concepts=3)
    fine = finer(photo, bank=plain.bank)
    torch.testing.assert_close(fine.logits, plain.logits)
    torch.testing.assert_close(fine.concept_logits, plain.concept_logits)
    np.testing.assert_allclose(fine.cam(1), plain.cam(1), atol=1e-5)
    a, b = fine.photos[0], plain.photos[0]
    assert a.coefficients.shape == (3, 15, 15)
    torch.testing.assert_close(a.layer_coefficients, b.bank.encode(_rows(b)).T.reshape(3, 8, 8))
    assert (a.grid, a.layer_grid) == (b.grid.finer(2), b.grid)


def _rows(photo):
    return photo.activations.flatten(1).T


def test_contributions_add_up_and_checks_run(photo):
    result = explainer(fine=2)(photo, concepts=3)
    split = result.contributions(1)
    torch.testing.assert_close(split.values.sum(1) + split.rest, split.logit)
    torch.testing.assert_close(
        result.concept_module()(result.photos[0].layer_coefficients[None]), result.logits
    )
    assert result.evidence("blur").values.shape == (1, 3)
    assert np.isfinite(result.check().randomization)


def test_sweeps_and_backbones_without_a_head(photo):
    swept = explainer(fine=2).sweep(photo, concepts=range(2, 4))
    assert [e.maps().shape for e in swept.explanations] == [(2, 15, 15), (3, 15, 15)]
    model = seeded(ConvNet)
    model.fc = model.dropout = model.avgpool = nn.Identity()
    bare = dff.Explainer(
        LoadedModel(model, "bare", PREP, None, unscored="no head"), layer="layer4"
    ).finer(2)
    assert bare(photo, concepts=2).maps().shape == (2, 15, 15)


def test_one_photo_and_a_dataset_have_the_same_rows(photo):
    ready = explainer(fine=2)
    network = Network(ready, precision="float32")
    assert network.cells == network.grid.shape == (15, 15)
    found = ready(photo, concepts=2)
    rows = network(photo[None]).rows[0]
    ours = found.bank.encode(rows.float()).T.reshape(2, 15, 15)
    torch.testing.assert_close(ours, found.photos[0].coefficients, atol=1e-4, rtol=1e-4)
    assert network.grid == found.photos[0].grid
    torch.testing.assert_close(network(photo[None]).logits, found.logits, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"), 8)


def test_a_run_on_a_fine_grid_goes_on_in_the_same_bytes(folder, tmp_path):
    whole = colocalize(folder, tmp_path / "whole", model=explainer(2), concepts=2)
    assert whole.maps(0).shape == (2, 15, 15)
    assert whole.state["counts"]["rows"] == 8 * 15 * 15

    def stop(stage, done, total):
        if stage == "placing concepts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        colocalize(folder, tmp_path / "part", model=explainer(2), concepts=2, progress=stop)
    colocalize(folder, tmp_path / "part", model=explainer(2), concepts=2)
    assert digest(tmp_path / "part") == digest(tmp_path / "whole")
    with pytest.raises(RunError, match="model fine was 2 and is now 1"):
        colocalize(folder, tmp_path / "part", model=explainer(1), concepts=2)


def test_a_sample_of_fine_cells_is_fitted_where_memory_is_short(folder, tmp_path):
    run = colocalize(folder, tmp_path, model=explainer(2), concepts=2, memory=4 * 12 * 8 * 100)
    assert not run.state["exact"]
    assert run.state["counts"]["rows"] == 8 * 100


def test_mean_contributions_are_over_the_layers_own_cells(folder, tmp_path):
    run = colocalize(folder, tmp_path, model=explainer(2), concepts=2)
    own = run.maps(3).float().numpy()[:, ::2, ::2].mean((1, 2))
    table = run.table("instances").to_pandas()
    np.testing.assert_allclose(table[table["image_id"] == 3]["mean"], own, rtol=1e-3)


@pytest.mark.parametrize(
    ("fine", "message"),
    [
        (0, "fine is a whole number from 1 on, not 0"),
        (1.5, "not 1.5"),
        (True, "not True"),
        (5, "4 pixels apart: a grid 5 times as fine"),
    ],
)
def test_what_cannot_be_made_finer(fine, message):
    with pytest.raises(UsageError, match=message):
        explainer(fine=fine)


def test_an_input_of_one_cell_has_no_neighbours():
    with pytest.raises(UsageError, match="grid of 1 x 4 cells: fine puts cells between"):
        Grid.tiled(1, 4, 8, 32).finer(2)


def test_the_option_reaches_both_commands(tmp_path):
    from typer.testing import CliRunner

    from dff.cli.app import app

    folder = photos(tmp_path / "data", 2)
    paths = sorted(map(str, folder.rglob("*.png")))
    words = ["--model", "demo", "--fine", "2", "--json", "-k", "2", "--out"]
    for command in (["analyze", paths[0]], ["colocalize", str(folder)]):
        result = CliRunner().invoke(app, [*command, *words, str(tmp_path / command[0])])
        assert result.exit_code == 0, result.output
    explained = json.loads((tmp_path / "analyze/explanation.json").read_text())
    assert explained["fine"] == 2
    state = json.loads((tmp_path / "colocalize/run.json").read_text())
    assert state["settings"]["model"]["fine"] == 2

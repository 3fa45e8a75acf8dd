import json

import numpy as np
import pytest
import torch

import dff
from dff.cli import main
from dff.errors import UsageError
from tests.toys import PixelNet, seeded


@pytest.fixture(scope="module")
def explainer():
    """Activations are the input's own pixels, in the middle of the colour cube's corners."""
    return dff.Explainer(seeded(PixelNet), preprocessing=dff.Preprocessing(size=24, mean=0, std=1))


def three_colours(seed=0):
    """Fields of red, green and blue of varying strength."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((24, 24, 3), np.uint8)
    for channel, rows in enumerate((slice(0, 8), slice(8, 16), slice(16, 24))):
        pixels[rows, :, channel] = rng.integers(60, 255, (8, 24))
    return pixels


def test_one_pass_sweeps_all_numbers(explainer):
    runs = []
    handle = explainer.model.register_forward_hook(lambda *_: runs.append(1))
    found = explainer.sweep(three_colours(), concepts=range(1, 4))
    handle.remove()
    assert len(runs) == 1
    assert found.selection.counts == (1, 2, 3)
    assert [len(one.bank) for one in found.explanations] == [1, 2, 3]
    assert found.selection.chosen == 3
    assert len(found.chosen.bank) == 3
    for one in found.explanations:
        with torch.no_grad():
            expected = explainer.model.fc(one.bank.at_full_presence)
        torch.testing.assert_close(one.concept_logits, expected)
    assert found.explanations[-1].bank.rest == pytest.approx(0, abs=1e-3)


def test_the_chosen_number_is_what_auto_finds(explainer):
    auto = explainer(three_colours(), concepts="auto")
    assert len(auto.bank) == 3
    assert len(explainer(three_colours(), concepts=range(1, 3)).bank) <= 2


def test_pictures_and_files(explainer, tmp_path):
    found = explainer.sweep([three_colours(), three_colours(1)], concepts=range(1, 4))
    assert found.overlays(1).width > found.overlays(1).height
    assert found.tree().height > 3 * 96
    names = [path.name for path in found.save(tmp_path)]
    assert names == [
        "sweep.png", "image_sweep.png", "image_tree.png", "image-2_sweep.png", "image-2_tree.png",
        "sweep.html", "sweep.json",
    ]  # fmt: skip
    report = json.loads((tmp_path / "sweep.json").read_text())
    assert report["chosen"] == 3
    assert [len(parents) for parents in report["parents"]] == [2, 3]
    assert report["parents"][0] == [1, 1], "concepts count from 1 on disk"


def test_ranges_that_cannot_be(explainer):
    with pytest.raises(UsageError, match=r"5 concepts are too many.*which allow 3 at most"):
        explainer.sweep(three_colours(), concepts=range(2, 6))
    with pytest.raises(UsageError, match="or 'auto', not 'many'"):
        explainer.sweep(three_colours(), concepts="many")
    with pytest.raises(UsageError, match=r"not 2\.5"):
        explainer(three_colours(), concepts=2.5)


def test_the_command(tmp_path, capsys):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        tmp_path / "photo.png"
    )
    words = ["sweep", str(tmp_path / "photo.png"), "--model", "demo", "--concepts", "2:3"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", str(tmp_path / "out"), "--json"])
    assert not ended.value.code
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == [2, 3]
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "stability" in printed
    assert str(tmp_path / "out" / "photo_tree.png") in printed

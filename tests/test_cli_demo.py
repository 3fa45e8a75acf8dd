import json

import pytest
from PIL import Image

from dff.cli import main


def test_the_demo_writes_pictures_and_beats_grad_cam_on_known_parts(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(tmp_path / "out")])
    assert not ended.value.code
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert results["creature"]["sees"].startswith("dragon 0.9")
    assert results["parts"]["mean_iou"] > 2 * results["parts"]["cam_mean_iou"]
    assert f"mean part IoU {results['parts']['mean_iou']}" in printed
    assert {row["part"] for row in results["parts"]["rows"]} == {
        "body", "head", "legs", "tail", "wings",
    }  # fmt: skip
    for path in results["paths"]:
        assert path in printed
        if path.endswith(".png"):
            Image.open(path).verify()

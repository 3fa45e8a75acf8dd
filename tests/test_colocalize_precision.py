"""Precision "auto": bfloat16 where a trial shows that it says the same, faster; else float32."""

import json

import numpy as np
import pytest

from dff.colocalization import RunOptions, dry_run, precision
from dff.colocalization.precision import _mean_iou
from tests.colocalized import colocalize, digest, photos, toy


@pytest.fixture
def data(tmp_path):
    return photos(tmp_path / "data", 24)


@pytest.fixture
def tried(monkeypatch):
    """A processor with bfloat16, on which every image is worth a trial."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "SHARE", 1)
    monkeypatch.setattr(precision, "FASTER", 0.0)  # how fast this machine is, is not tested here


def chosen(run):
    about = json.loads((run.path / "run.json").read_text())
    assert about["settings"]["precision"] == about["precision"]["precision"]
    assert run.summary()["precision"] == about["precision"]
    return about["precision"]


def test_without_bfloat16_it_is_float32_and_says_why(data, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    found = chosen(colocalize(data, tmp_path / "run", model=toy(), concepts=2))
    assert found["precision"] == "float32"
    assert found["reason"] == "this processor has no bfloat16 arithmetic"
    assert found["photos"] == 0
    assert found["maps"] is None


def test_few_images_are_not_worth_a_trial(data, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    found = chosen(colocalize(data, tmp_path / "run", model=toy(), concepts=2))
    assert (found["precision"], found["photos"]) == ("float32", 0)
    assert "24 images are too few" in found["reason"]


def test_what_agrees_and_is_faster_is_taken(data, tmp_path, tried, monkeypatch):
    run = colocalize(data, tmp_path / "run", model=toy(), concepts=2)
    found = chosen(run)
    assert found["precision"] == "bfloat16"
    assert found["photos"] == 24
    assert 0.95 <= found["maps"] < 1  # bfloat16 has been computed in: not the same to the last bit
    assert 0.9 <= found["boxes"] <= 1
    assert found["top_1"] >= 0.98
    assert "bfloat16 on 24 photos is" in found["reason"]
    asked = colocalize(data, tmp_path / "asked", model=toy(), concepts=2, precision="bfloat16")
    assert run.table("instances").equals(asked.table("instances"))
    plain = colocalize(data, tmp_path / "plain", model=toy(), concepts=2, precision="float32")
    assert not run.table("instances").equals(plain.table("instances"))


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("ALIKE", 1.1, "maps agree to 9"),
        ("OVERLAP", 1.1, "boxes overlap by"),
        ("SAME_TOP_1", 1.1, "the class is the same in"),
        ("FASTER", 1e6, "times as fast as float32"),
    ],
)
def test_what_falls_short_is_not(limit, value, words, data, tmp_path, tried, monkeypatch):
    monkeypatch.setattr(precision, limit, value)
    found = chosen(colocalize(data, tmp_path / "run", model=toy(), concepts=2))
    assert found["precision"] == "float32"
    assert words in found["reason"]
    assert found["speed"] > 0


def test_a_run_goes_on_in_the_precision_it_began_in(data, tmp_path, tried, monkeypatch):
    def stop(stage, done, total):
        if stage == "factorizing":
            raise KeyboardInterrupt

    whole = colocalize(data, tmp_path / "whole", model=toy(), concepts=2)
    with pytest.raises(KeyboardInterrupt):
        colocalize(data, tmp_path / "part", model=toy(), concepts=2, progress=stop)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)  # another machine
    part = colocalize(data, tmp_path / "part", model=toy(), concepts=2)
    assert chosen(part)["precision"] == "bfloat16"
    parts, wholes = digest(part.path), digest(whole.path)
    parts.pop("run.json")  # its figures hold how fast either trial was
    wholes.pop("run.json")
    assert parts == wholes


def test_a_forecast_tries_in_the_precision_of_the_run(data, tmp_path, tried):
    auto, exact = (
        dry_run(data, tmp_path / "run", model=toy(), concepts=2,
                options=RunOptions(precision=asked))
        for asked in ("auto", "float32")
    )  # fmt: skip
    assert exact.disk - auto.disk == pytest.approx(24 * 64 * 12 * 2, rel=0.1)  # 2 bytes less each


def test_boxes_that_only_one_precision_finds_count_as_apart():
    none = [-1, -1, -1, -1]
    first = np.array([[0, 0, 10, 10], [0, 0, 4, 4], none], float)
    second = np.array([[5, 0, 15, 10], none, none], float)
    assert _mean_iou(first, second) == pytest.approx((1 / 3 + 0) / 2, abs=1e-3)
    assert _mean_iou(first, first) == 1

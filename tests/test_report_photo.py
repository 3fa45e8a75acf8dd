"""The page of photos: what it holds, that it is safe, and where it is written."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import dff
from dff.concepts import titles
from dff.explain.pages import photo_view
from dff.explain.pages import photos as pages
from dff.images import Picture, Preprocessing
from dff.report import PhotoPage, photo_page
from dff.report.page import json_for_html
from tests.browser import data_of
from tests.toys import ConvNet, seeded

EVIL = "<img src=x onerror=alert(1)>\u2028</script>&'\""


def explained(count: int = 1, *, concepts: int = 3, name: str = "photo"):
    explainer = dff.Explainer(
        seeded(ConvNet), layer="layer4", preprocessing=Preprocessing(size=48, mean=0.5, std=0.25),
        class_names=["ant", "bee", "cat", "dog", EVIL],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    photos = [
        Picture(rng.integers(0, 256, (48, 64, 3), np.uint8), name=f"{name}{i or ''}")
        for i in range(count)
    ]
    return explainer(photos, concepts=concepts)


@pytest.fixture(scope="module")
def result():
    return explained(2)


@pytest.fixture(scope="module")
def page(result):
    return result.to_html()


def grey(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))


def test_the_page_holds_what_the_explanation_says(result, page):
    data = data_of(page)
    assert [c["title"] for c in data["concepts"]] == list(titles(result.bank.names))
    assert [c["color"] for c in data["concepts"]] == result.bank.colors.tolist()
    assert len(data["photos"]) == 2
    for photo, one in zip(data["photos"], result, strict=True):
        labels = [[[x.name, round(x.confidence, 4)] for x in row] for row in one.labels()]
        assert [[[n, pytest.approx(c)] for n, c in row] for row in labels] == photo["labels"]
        best = one.predictions(top_k=1)[0]
        assert photo["predictions"][0] == [best.name, pytest.approx(best.probability, abs=1e-4)]
        assert photo["cams"][0][0] == best.name


def test_maps_are_those_of_the_explanation(result, page):
    photo = data_of(page)["photos"][0]
    size = grey(photo["smooth"][0]).shape
    expected = result.heatmaps(size)
    for k, source in enumerate(photo["smooth"]):
        np.testing.assert_allclose(grey(source) / 255, expected[k], atol=0.003)
    assert grey(photo["sharp"][0]).shape == size


def test_bars_and_the_rest_add_up_to_the_logit(result, page):
    for photo, one in zip(data_of(page)["photos"], result, strict=True):
        assert photo["bars"]
        for column in photo["bars"]:
            parts = sum(column["values"]) + sum(value for _, value in column["addends"])
            assert parts == pytest.approx(column["total"][1], abs=1e-3)
        assert photo["bars"][0]["total"][1] == pytest.approx(float(one.logits[0].max()), abs=1e-3)


def test_evidence_and_check_stand_where_they_were_asked_for(result):
    one = result[0]
    page = one.to_html(answers=[[one.evidence("ablation"), one.check()]])
    photo = data_of(page)["photos"][0]
    assert "taken out" in photo["bars"][-1]["about"]
    assert photo["tables"][0]["rows"][0][0] == "concept deletion auc"
    assert photo["figures"][0]["picture"].startswith("data:image/png")


def test_nothing_can_get_in_or_out(page):
    """Nothing is loaded, and only the script and style whose digests the policy names run."""
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)


def test_names_stay_text_wherever_they_stand(result):
    photos = [replace(p, picture=replace(p.picture, name=EVIL)) for p in result.photos[:1]]
    named = dff.Explanation(tuple(photos)).named({0: "<b>bold</b>"})
    page = named.to_html()
    assert "<img src=x" not in page
    assert "<b>" not in page
    assert "\u2028" not in page.split('id="data">')[1]
    assert page.count("<script") == page.count("</script>") == 2
    data = data_of(page)
    assert data["photos"][0]["name"] == EVIL
    assert data["concepts"][0]["title"] == "1 <b>bold</b>"


def test_json_in_html_is_ascii_without_markup():
    text = json_for_html({"a": "<&>\u2028é\ud800", "b": float("nan")})
    assert text == '{"a":"\\u003c\\u0026\\u003e\\u2028\\u00e9\\ud800","b":null}'


def test_half_characters_in_names_can_be_written(result):
    photos = [replace(p, picture=replace(p.picture, name="a\udc80")) for p in result.photos[:1]]
    assert dff.Explanation(tuple(photos)).to_html().encode()


def test_concepts_without_scores_say_why(result):
    shared = replace(result.shared, unscored="the layer has no say")
    photos = tuple(replace(photo, shared=shared) for photo in result.photos[:1])
    data = data_of(dff.Explanation(photos).to_html())
    assert data["unscored"] == "the layer has no say"
    assert data["photos"][0]["bars"] == data["photos"][0]["cams"] == []


def test_of_many_photos_a_sample_is_shown_and_said(monkeypatch):
    monkeypatch.setattr(pages, "MOST_PHOTOS", 2)
    view = photo_view(explained(5).photos)
    assert [photo.name for photo in view.photos] == ["photo", "photo4"]
    assert view.left_out.startswith("2 of 5 photos")


def test_many_concepts_make_smaller_maps():
    assert pages._map_side(5, 1280) == pages.MAP_SIDE
    side = pages._map_side(300 * 48, 1280)
    assert side == pages.LEAST_MAP_SIDE


def test_three_hundred_concepts_make_a_page(result):
    entry = replace(
        photo_view(result.photos).photos[0],
        sharp=np.zeros((300, 8, 8), np.float32), smooth=np.zeros((300, 8, 8), np.float32),
        shares=[0.0] * 300, labels=[[]] * 300,
    )  # fmt: skip
    concept = photo_view(result.photos).concepts[0]
    page = photo_page(PhotoPage("many", ["about"], [concept] * 300, [entry]))
    assert len(data_of(page)["photos"][0]["sharp"]) == 300


def test_the_command_writes_it_alone_and_again(run, tmp_path):
    words = ("analyze", "a.png", "--model", "demo", "-k", 3, "--format", "html", "-q")
    for more in ((), ("--check",)):
        assert run(*words, *more)[0] == 0
    page = (tmp_path / "dff-out/explanation.html").read_text()
    assert data_of(page)["photos"][0]["tables"][0]["text"]
    assert not (tmp_path / "dff-out/a_panel.png").exists()

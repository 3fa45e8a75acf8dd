"""What a photo's picture is drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dff.demo import creatures
from dff.explain import Explainer, Explanation
from dff.explain import drawing as module
from dff.explain.drawing import Drawing
from dff.explain.questions.labels import Label
from dff.maps import refine, sharpened
from dff.rendering import Legend, number_concepts, overlay, paled


def labels_of(names: list[str | None]) -> Any:
    """Stand in for `photo_labels`: one label a concept, None for no class."""

    def photo_labels(photo: Any, *, top_k: int = 3) -> list[list[Label]]:
        index = {c.name: c.index for c in photo.predictions(top_k=99)}
        return [[] if name is None else [Label(index.get(name, 0), name, 0.75)] for name in names]

    return photo_labels


@pytest.fixture(scope="module")
def dragon() -> Explanation:
    pixels = creatures.render(3_000_005, size=256, species="dragon").image
    return Explainer("demo")(pixels, concepts=3)


def legend_of(result: Explanation, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Legend:
    """Return the legend that a panel is given."""
    given: list[Legend] = []
    panel = module.rendering.panel

    def keep(tiles: Any, *, legend: Legend) -> Any:
        given.append(legend)
        return panel(tiles, legend=legend)

    with monkeypatch.context() as patch:
        patch.setattr(module.rendering, "panel", keep)
        result.panel(**options)
    return given[0]


def test_bars_of_the_likeliest_classes_add_up_to_the_logit(
    dragon: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    legend = legend_of(dragon, monkeypatch)
    likely = [c for c in dragon.predictions(top_k=3) if c.probability >= 0.01]
    assert [column.heading for column in legend.columns] == [c.name for c in likely]
    for column, score in zip(legend.columns, likely, strict=True):
        assert column.about == "adds to the logit of"
        assert column.total == ("logit of the class", pytest.approx(score.logit, abs=1e-4))
        sum_of = sum(column.values) + sum(value for _, value in column.addends)
        assert sum_of == pytest.approx(score.logit, abs=0.02 * abs(score.logit))
        assert column.notes == [("probability", f"{score.probability:.2f}")]
    assert legend.heads == [("concept", "share of activations"), ("speaks for", "confidence")]


def test_bars_are_for_the_target_and_for_what_was_asked(
    dragon: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    (column,) = legend_of(dragon, monkeypatch, target="griffin").columns
    assert column.heading == "griffin"
    lowers = dragon.evidence("ablation", "griffin")
    columns = legend_of(dragon, monkeypatch, target="griffin", evidence=[lowers]).columns
    assert [c.about for c in columns] == ["adds to the logit of", "taken out, lowers the logit of"]
    assert columns[1].values == pytest.approx(lowers.values[0].tolist())
    assert columns[1].total is None, "these do not add up"
    versus = dragon.evidence("contributions", "griffin", versus="dragon")
    (column,) = legend_of(dragon, monkeypatch, target="griffin", evidence=[versus]).columns
    assert column.heading == "griffin - dragon"


def test_legends_say_what_concepts_speak_for_in_the_photo(
    dragon: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "photo_labels", labels_of(["dragon", None, "griffin"]))
    entries = dragon.legend_entries()
    assert [entry.lines for entry in entries] == [
        [("dragon", 0.75)],
        ["no class"],
        [("griffin", 0.75)],
    ]
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert all(entry.picture is not None for entry in entries)


def test_concepts_of_no_class_are_pale(
    dragon: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, colors = dragon.photos[0].picture.pixels, dragon.bank.colors
    strongest = dragon.heatmaps().argmax(0)
    drawn = {}
    for names in (["a", "b", "c"], ["a", None, "c"], [None, None, None]):
        monkeypatch.setattr(module, "photo_labels", labels_of(names))
        drawn[names.count(None)] = np.asarray(
            dragon.overlay(with_legend=False, smooth=True)
        ).astype(int)
        if names.count(None) == 1:
            second = dragon.legend_entries()[1]
            np.testing.assert_array_equal(second.color, paled(colors)[1])
    nearer = np.abs(drawn[1] - pixels).sum(2) < np.abs(drawn[0] - pixels).sum(2)
    assert nearer[strongest == 1].mean() > 0.8
    assert nearer[strongest == 0].mean() < 0.1
    np.testing.assert_array_equal(drawn[3], drawn[0])  # not if all are: nothing stands before them


def test_each_photo_has_its_own_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [creatures.render(3_000_000 + i, size=128).image for i in (5, 9)]
    result = Explainer("demo")(photos, concepts=3)
    first, second = (legend_of(photo, monkeypatch) for photo in result)
    for legend, photo in ((first, result[0]), (second, result[1])):
        assert legend.columns[0].heading == photo.predictions(top_k=1)[0].name
    assert first.columns[0].values != second.columns[0].values
    assert not np.array_equal(first.entries[0].picture, second.entries[0].picture)


def test_without_gradients_there_are_labels_and_no_bars(
    dragon: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(dragon.photos[0]), "undifferentiable", "quantised")
    legend = legend_of(dragon, monkeypatch)
    assert legend.columns == []
    assert any(entry.lines != ["no class"] for entry in legend.entries)


def test_outlines_are_drawn_on_request(dragon: Explanation, tmp_path: Path) -> None:
    assert dragon.overlay() != dragon.overlay(outline=True)
    assert dragon.panel() != dragon.panel(outline=True)
    for outline in (False, True):
        dragon.save(tmp_path / str(outline), formats=["png"], outline=outline)
    for name in ("image_concepts.png", "image_panel.png"):
        assert (tmp_path / "True" / name).read_bytes() != (tmp_path / "False" / name).read_bytes()


def test_saved_pictures_are_those_that_are_drawn(dragon: Explanation, tmp_path: Path) -> None:
    asked = [dragon.evidence("ablation", "griffin")]
    dragon.save(tmp_path, formats=["png"], target="griffin", evidence=[asked])
    panel = dragon.panel(target="griffin", evidence=asked)
    with module.Image.open(tmp_path / "image_panel.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(panel))


def test_what_pictures_share_is_computed_once(
    dragon: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    split = module.photo_contributions
    monkeypatch.setattr(
        module, "photo_contributions", lambda *a, **b: calls.append(1) or split(*a, **b)
    )
    drawing = Drawing(dragon.photos)
    drawing.overlay(), drawing.panel()
    assert len(calls) == 1
    drawing.forget()
    drawing.overlay()
    assert len(calls) == 2


def test_pictures_follow_the_photos_edges_but_with_smooth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = creatures.render(3_000_005, size=128, species="dragon").image
    result = Explainer("demo")(pixels, concepts=3)
    photo, plain = result.photos[0], result.heatmaps()
    fitted = sharpened(plain, pixels, radius=round(128 / photo.grid.rows))
    monkeypatch.setattr(module, "photo_labels", labels_of(["a", "b", "c"]))
    for smooth, maps in ((False, fitted), (True, plain)):
        colors = result.bank.colors
        expected = number_concepts(overlay(pixels, maps, colors=colors), maps, colors=colors)
        drawn = np.asarray(result.overlay(with_legend=False, smooth=smooth))
        np.testing.assert_array_equal(drawn, expected)
    assert result.panel() != result.panel(smooth=True)
    for smooth in (False, True):
        result.save(tmp_path / str(smooth), formats=["png"], smooth=smooth)
    first, second = (tmp_path / str(smooth) / "image_concepts.png" for smooth in (False, True))
    assert first.read_bytes() != second.read_bytes()


def test_a_map_to_be_drawn_is_as_strong_as_before_and_ends_at_the_edge() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[:, 30:] = 255
    across = np.clip((np.arange(60) - 20) / 20, 0, 1).astype(np.float32)
    maps = np.stack([np.tile(0.5 * across, (60, 1)), np.zeros((60, 60), np.float32)])
    drawn = sharpened(maps, picture, radius=12)
    assert np.quantile(drawn[0], 0.99) == np.quantile(maps[0], 0.99)
    assert drawn[0, :, 28].mean() < 0.3 * drawn[0, :, 31].mean(), (
        "an edge where the picture has one"
    )
    assert maps[0, :, 28].mean() > 0.7 * maps[0, :, 31].mean()
    assert not drawn[1].any(), "nothing is made stronger than nothing"
    assert drawn.max() <= 1
    assert refine(maps, picture, radius=12)[0].max() <= drawn[0].max()


def halves(height: int = 200, width: int = 300) -> np.ndarray:
    """Maps of two concepts, left and right, of one in the corner, and of a faint one."""
    maps = np.zeros((4, height, width), np.float32)
    maps[0, :, : width // 2] = 0.9
    maps[1, :, width // 2 :] = 0.8
    maps[2, :20, :20] = 1.0
    maps[3] = 0.05
    return maps


def test_each_concept_has_its_number_where_it_is_the_strongest() -> None:
    picture, maps = np.full((200, 300, 3), 40, np.uint8), halves()
    drawn = number_concepts(picture, maps)
    changed = (drawn != picture).any(2)
    count, _, boxes, centres = cv2.connectedComponentsWithStats(changed.astype(np.uint8))
    assert count - 1 == 3, "the faint one has none"
    places = sorted((x, y) for x, y in centres[1:])
    assert places[0][0] < 30, "in its corner"
    assert 40 < places[1][0] < 130
    assert places[2][0] > 170
    for left, top, width, height, _ in boxes[1:].tolist():
        assert left > 0
        assert top > 0
        assert left + width < 300
        assert top + height < 200
        assert width == height, "a whole disc"
    assert (drawn[changed] > 240).any()
    assert (drawn[changed] < 60).any()


def test_small_pictures_and_no_concepts_have_no_numbers() -> None:
    small = np.full((100, 300, 3), 40, np.uint8)
    assert number_concepts(small, halves(100)) is small
    large = np.full((200, 300, 3), 40, np.uint8)
    assert np.array_equal(number_concepts(large, np.zeros((0, 200, 300), np.float32)), large)
    assert np.array_equal(number_concepts(large, 0 * halves()), large)

"""Legends, panels, contact sheets and the drop-in picture: everything fits and can be read."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dff.compat import show_factorization_on_image
from dff.errors import UsageError
from dff.rendering import (
    LegendEntry,
    colors,
    contact_sheet,
    legend,
    overlay,
    panel,
    text,
)

LONG = "African elephant, Loxodonta africana, and all of its many relatives"


def entries(count: int, lines: int = 3, name: str = "tabby, tabby cat") -> list[LegendEntry]:
    return [
        LegendEntry(color, f"Concept {i + 1}", 0.3, [(name, 0.12)] * lines)
        for i, color in enumerate(colors(count))
    ]


def border(picture: np.ndarray) -> np.ndarray:
    edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    return np.concatenate([edge.reshape(-1, 3) for edge in edges])


def where(picture: np.ndarray, color: np.ndarray) -> np.ndarray:
    return (picture == color).all(axis=2)


def ink(picture: np.ndarray) -> int:
    return int((picture < 160).all(axis=2).sum())


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 33), st.integers(0, 6), st.integers(1, 900), st.sampled_from(["cat", LONG, ""])
)
def test_legends_hold_every_swatch_whole(count: int, lines: int, height: int, name: str) -> None:
    """Every swatch is there as a full square, in order, and nothing touches the border."""
    drawn = np.asarray(legend(entries(count, lines, name), height=height))
    assert drawn.shape[0] >= height
    assert (border(drawn) == 255).all()
    places = []
    for color in np.unique(colors(count), axis=0):
        rows, cols = np.nonzero(where(drawn, color))
        side = rows.max() - rows.min() + 1 if count <= 32 else 1
        if count <= 32:
            assert side == cols.max() - cols.min() + 1
            assert len(rows) == side * side >= 100
        places.append((cols.min(), rows.min()))
    assert len(set(places)) == min(count, 32)


def test_legends_are_as_high_as_asked_where_that_can_be() -> None:
    for height in (120, 224, 512, 2000):
        assert legend(entries(5), height=height).height == height
    assert legend(entries(5), height=20).height > 20
    assert legend([], height=50).size == (1, 50)


def test_few_entries_stand_in_one_column_and_many_in_more() -> None:
    def columns(count: int, height: int) -> int:
        drawn = np.asarray(legend(entries(count), height=height))
        return len({int(np.nonzero(where(drawn, c))[1].min()) for c in colors(count)})

    assert columns(5, 560) == 1
    assert columns(12, 360) == 3
    assert columns(5, 40) == 5


def test_text_grows_with_the_room_within_limits() -> None:
    widths = [legend(entries(3), height=height).width for height in (210, 300, 3000, 6000)]
    assert widths[0] < widths[1] <= widths[2] == widths[3]


def test_long_names_are_shortened_and_scores_kept() -> None:
    short = legend([LegendEntry((0, 0, 0), "1", 0.1, [("cat", 0.5)])], height=300)
    long = legend([LegendEntry((0, 0, 0), "1", 0.1, [(LONG * 9, 0.5)])], height=300)
    longer = legend([LegendEntry((0, 0, 0), "1", 0.1, [(LONG * 99, 0.5)])], height=300)
    assert short.width < long.width == longer.width < 450
    score = text.width("0.50", 18)
    right = np.asarray(long)[:, -score - 12 :]
    np.testing.assert_array_equal(right, np.asarray(longer)[:, -score - 12 :])
    assert ink(right) > 20


def test_shares_and_scores_as_text() -> None:
    def drawn(share: float | None, line: object) -> np.ndarray:
        return np.asarray(legend([LegendEntry((9, 9, 9), "A", share, [line])], height=200))  # type: ignore[list-item]

    np.testing.assert_array_equal(drawn(0.3, ("a", 0.5)), drawn(0.3049, ("a", "0.50")))
    assert not np.array_equal(drawn(0.0, ("a", 1.0)), drawn(0.001, ("a", 1.0)))  # <1% is not 0%
    assert drawn(None, "only text").shape[0] == 200
    assert drawn(float("nan"), ("a", float("nan"))).shape[0] == 200


@pytest.mark.parametrize("name", ["кошка", "猫", "عربي", "Ünïcödé", "🐱", "a\nb\tc\0", "", " "])
def test_any_letters_can_be_drawn(name: str) -> None:
    assert (
        legend([LegendEntry((1, 2, 3), name, 0.5, [(name, 0.5), name])], height=150).height == 150
    )


def test_accents_do_not_vanish_where_no_font_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text.clean.cache_clear()
    monkeypatch.setattr(text, "_fallback", lambda: None)
    assert text.clean("Évêque  à\nÅland") == "Eveque a Aland"
    text.clean.cache_clear()


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40), st.integers(8, 30), st.integers(0, 300))
def test_shortened_text_fits(content: str, size: int, room: int) -> None:
    result = text.shorten(content, size, room)
    assert text.width(result, size) <= room
    if text.width(text.clean(content), size) <= room:
        assert result == text.clean(content)


def test_text_is_not_clipped() -> None:
    """Each line keeps within the room that it reports, above and below too."""
    for size in (9, 11, 14, 18, 30):
        canvas = np.full((text.line_height(size) + 8, 900, 3), 255, np.uint8)
        text.put(canvas, "Ájgqy|@ (fly) WAVE", x=4, y=4, size=size)
        rows, cols = np.nonzero((canvas < 255).all(axis=2))
        assert rows.min() >= 4
        assert rows.max() < 4 + text.line_height(size)
        assert cols.max() <= 5 + text.width(text.clean("Ájgqy|@ (fly) WAVE"), size)
        assert ink(canvas) > size * 4


def test_legends_refuse_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="positive height"):
        legend(entries(1), height=0)
    with pytest.raises(UsageError, match="smallest <= largest"):
        legend(entries(1), height=9, smallest=20, largest=10)
    with pytest.raises(UsageError, match="three numbers"):
        legend([LegendEntry((1, 2), "a")], height=90)


@pytest.mark.parametrize(
    "shape", [(32, 32), (224, 224), (32, 8000), (8000, 32), (480, 640), (1, 1), (3000, 2000)]
)
@pytest.mark.parametrize("count", [0, 5, 32])
def test_panels_of_any_shape(shape: tuple[int, int], count: int) -> None:
    """Every tile is there, whole, of one size and big enough, and the panel suits a screen."""
    flat = [np.full((*shape, 3), c, np.uint8) for c in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    tiles = list(zip(["Original", "Concepts", LONG], flat, strict=True))
    drawn = np.asarray(panel(tiles, legend=entries(count)))
    assert (border(drawn) == 255).all()
    sizes = set()
    for picture in flat:
        rows, cols = np.nonzero(where(drawn, picture[0, 0]))
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
        assert len(rows) == height * width
        assert min(height, width) >= 60
        sizes.add((height, width))
    assert len(sizes) == 1
    height, width = sizes.pop()
    proportion = min(max(shape[1] / shape[0], 1 / 8), 8)
    assert width / height == pytest.approx(proportion, rel=0.02)
    assert drawn.shape[0] < 2000
    assert drawn.shape[1] < 3200


def test_wide_pictures_go_below_each_other() -> None:
    wide, square = np.zeros((100, 400, 3), np.uint8), np.zeros((300, 300, 3), np.uint8)
    one = panel([("a", wide)])
    assert panel([("a", wide)] * 3).width == one.width
    assert panel([("a", square)] * 3).height == panel([("a", square)]).height


def test_tiles_of_different_shapes_are_equally_high() -> None:
    red, blue = np.full((100, 100, 3), (250, 0, 0)), np.full((300, 200, 3), (0, 0, 250))
    drawn = np.asarray(panel([("a", red.astype(np.uint8)), ("b", blue.astype(np.uint8))]))
    rows = [np.nonzero(where(drawn, np.array(c)))[0] for c in ((250, 0, 0), (0, 0, 250))]
    assert (rows[0].min(), rows[0].max()) == (rows[1].min(), rows[1].max())


def test_panels_take_pillow_images_of_any_mode() -> None:
    array = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    same = panel([("a", Image.fromarray(array))])
    np.testing.assert_array_equal(np.asarray(same), np.asarray(panel([("a", array)])))
    assert panel([("a", Image.new("LA", (50, 50)))]).mode == "RGB"


def test_pictures_within_the_limits_are_shown_pixel_by_pixel() -> None:
    array = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    drawn = np.asarray(panel([("a", array)]))
    margin = 14
    np.testing.assert_array_equal(drawn[-margin - 400 : -margin, margin : margin + 500], array)


def test_panels_refuse_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="at least one"):
        panel([])
    with pytest.raises(UsageError, match="uint8, RGB, not float64"):
        panel([("a", np.zeros((5, 5, 3)))])


def test_contact_sheets_show_every_picture_whole() -> None:
    green = np.full((10, 40, 3), (0, 200, 0), np.uint8)
    rows = [(entry, [green] * (3 - i)) for i, entry in enumerate(entries(3))]
    drawn = np.asarray(contact_sheet(rows, tile=100))
    assert (border(drawn) == 255).all()
    assert where(drawn, np.array([0, 200, 0])).sum() == 6 * 100 * 25
    for color in colors(3):
        assert where(drawn, color).sum() >= 100


def test_contact_sheets_of_small_tiles_and_long_texts_do_not_overlap() -> None:
    drawn = np.asarray(contact_sheet([(e, []) for e in entries(4, 9, LONG)], tile=24))
    tops = [int(np.nonzero(where(drawn, c))[0].min()) for c in colors(4)]
    assert min(np.diff(tops)) > 10 * text.line_height(11)
    assert (border(drawn) == 255).all()


def test_contact_sheets_refuse_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="at least one row"):
        contact_sheet([])
    with pytest.raises(UsageError, match="at least 24 pixels, not 5"):
        contact_sheet([(entries(1)[0], [])], tile=5)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    return random.random((224, 200, 3)).astype(np.float32), random.random((4, 224, 200))


def test_the_drop_in_picture_is_the_overlay_with_a_legend(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    photo, maps = scene
    plain = show_factorization_on_image(photo, maps, image_weight=0.3)
    pixels = np.clip(photo * 255 + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(plain, overlay(pixels, maps, image_weight=0.3))
    labels = ["cat:0.51\ntiger cat:0.20", "dog:0.93", "a: b", ""]
    drawn = show_factorization_on_image(photo, maps, image_weight=0.3, concept_labels=labels)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[:, :200], plain)
    for color in colors(4):
        assert where(drawn[:, 200:], color).sum() >= 100


@pytest.mark.parametrize("side", [8, 40, 100, 700])
def test_the_drop_in_legend_is_as_high_as_the_picture(side: int) -> None:
    photo, maps = np.zeros((side, side, 3)), np.zeros((6, side, side))
    labels = [f"{LONG}:0.5\ncat:0.3\ndog:0.1"] * 6
    drawn = show_factorization_on_image(photo, maps, concept_labels=labels)
    assert drawn.shape[0] == side
    assert drawn.shape[1] > side


def test_drop_in_colours_reach_the_legend(scene: tuple[np.ndarray, np.ndarray]) -> None:
    photo, maps = scene
    given_colors = [np.array([1.0, 0, 0, 1]), np.array([0, 1.0, 0, 1])]
    drawn = show_factorization_on_image(
        photo, maps[:2], colors=given_colors, concept_labels=["x", "y"]
    )
    for color in ((255, 0, 0), (0, 255, 0)):
        assert where(drawn[:, 200:], np.array(color)).sum() >= 100


@pytest.mark.parametrize(
    ("img", "labels", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), None, "not uint8 of shape (8, 8, 3); divide"),
        (np.zeros((8, 8)), None, "of shape (8, 8)"),
        (np.full((8, 8, 3), 9.0), None, "img lies in [0, 1], but came in [9, 9]"),
        (np.full((8, 8, 3), np.nan), None, "img lies in [0, 1]"),
        (np.zeros((8, 8, 3)), ["one"], "there are 2 concepts, but 1 labels"),
    ],
)
def test_what_the_drop_in_refuses(img: np.ndarray, labels: list[str] | None, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        show_factorization_on_image(img, np.zeros((2, 8, 8)), concept_labels=labels)

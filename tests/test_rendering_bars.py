"""Legends with bars, headings and crops: what is drawn where, and that it can be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dff.errors import UsageError
from dff.labels import short_name
from dff.rendering import BarColumn, Legend, LegendEntry, colors, crop_around, legend, panel, text

BLUE, ORANGE = (tuple(int(v) for v in color) for color in colors(2))


def table(*columns: BarColumn, count: int = 2, **more: Any) -> Legend:
    entries = [
        LegendEntry(color, f"Concept {i + 1}", 0.2, ["x"], **more)
        for i, color in enumerate(colors(count))
    ]
    return Legend(entries, [("concept", "share"), ("speaks for", "confidence")], columns)


def where(drawn: np.ndarray, color: tuple[int, ...]) -> np.ndarray:
    return (drawn == color).all(axis=2)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Return what is written, as (text, x, y)."""
    texts: list[tuple[str, int, int]] = []
    put = text.put

    def record(canvas: np.ndarray, content: str, **options: Any) -> None:
        texts.append((content, options["x"], options["y"]))
        put(canvas, content, **options)

    monkeypatch.setattr(text, "put", record)
    return texts


def bar(drawn: np.ndarray, color: tuple[int, ...], column: int = 0) -> tuple[int, int, float]:
    """Return the left and right end of a colour's bar right of the swatch, and how full it is."""
    seen = where(drawn, color)
    x = np.flatnonzero(seen.any(axis=0))
    runs = np.split(x, np.flatnonzero(np.diff(x) > 5) + 1)[1 + column]  # the first is the swatch
    part = seen[:, runs[0] : runs[-1] + 1]
    part = part[part.any(axis=1)]
    return int(runs[0]), int(runs[-1]), float(part.mean())


def test_bars_start_at_one_zero_and_show_their_sign_by_side_and_pattern() -> None:
    drawn = np.asarray(legend(table(BarColumn("cat", [2.0, -1.0])), height=300))
    left, zero, positive = bar(drawn, BLUE)
    start, end, negative = bar(drawn, ORANGE)
    assert positive == 1, "full"
    assert 0.3 < negative < 0.7, "hatched: seen in black and white, too"
    assert end < left, "on the other side"
    assert abs(left - end) <= 4
    assert (zero - left + 2) / (end - start + 2) == pytest.approx(2, rel=0.1)


def test_columns_of_one_kind_share_a_scale_and_others_do_not() -> None:
    columns = [BarColumn("cat", [4, 1], "adds"), BarColumn("dog", [2, 1], "adds")]
    drawn = np.asarray(legend(table(*columns, BarColumn("cat", [0.02, 0], "lowers")), height=300))
    lengths = [right - left for left, right, _ in (bar(drawn, BLUE, i) for i in range(3))]
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.1)
    assert lengths[2] == pytest.approx(lengths[0], abs=1)


def test_what_is_written_adds_up(written: list[tuple[str, int, int]]) -> None:
    column = BarColumn(
        "tabby",
        [5.25, -0.5],
        "adds to the logit of",
        [("rest", 0.3), ("gap", float("nan"))],
        ("photo's logit", 5.05),
        [("probability", "0.62")],
    )
    legend(table(column, BarColumn("small", [-0.001, 0.0])), height=300)
    texts = [content for content, _, _ in written]
    for expected in ("tabby", "adds to the logit of", "+5.25", "-0.50", "+0.30", "5.05", "0.62"):
        assert texts.count(expected) == 1
    assert texts.count("0.00") == 2, "nothing is written as -0.00"
    right = {content: x + text.width(content, 18) for content, x, _ in written}
    assert right["+5.25"] == right["-0.50"] == right["+0.30"] == right["5.05"]
    rows = {content: y for content, _, y in written}
    assert rows["Concept 1"] == rows["+5.25"]
    assert rows["rest"] == rows["+0.30"] < rows["photo's logit"] == rows["5.05"]


def test_large_numbers_have_fewer_decimals(written: list[tuple[str, int, int]]) -> None:
    legend(table(BarColumn("cat", [9.0, 0.25], total=("logit", 13.64))), height=300)
    texts = [content for content, _, _ in written]
    assert "13.6" in texts
    assert "+9.0" in texts


def test_headings_are_above_every_part_and_the_sum_below_the_last(
    written: list[tuple[str, int, int]],
) -> None:
    column = BarColumn("cat", [1.0] * 9, "adds", total=("logit", 9.0))
    shown = table(column, count=9)
    drawn = legend(shown, height=200)
    texts = [content for content, _, _ in written]
    parts = texts.count("cat")
    assert parts > 1
    assert texts.count("speaks for") == texts.count("adds") == parts
    assert texts.count("logit") == 1
    assert (np.asarray(drawn)[[0, -1]] == 255).all()
    assert (np.asarray(drawn)[:, [0, -1]] == 255).all()


def test_long_headings_are_broken_after_words_and_then_shortened() -> None:
    assert text.wrapped("black-and-tan coonhound", 14, 100, lines=2) == [
        "black-and-tan",
        "coonhound",
    ]
    lines = text.wrapped("one two three four five six seven eight nine", 14, 80, lines=2)
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert all(text.width(line, 14) <= 80 for line in lines)
    assert text.wrapped("", 14, 80, lines=2) == []


def test_names_are_cut_after_a_word() -> None:
    name = "American Staffordshire terrier, pit bull"
    assert text.shorten(name, 14, 170) == "American Staffordshire…"
    assert text.shorten(name, 14, 100) == "American…"
    assert text.shorten("Staffordshire", 14, 60).endswith("…")
    assert len(text.shorten("a Staffordshire", 14, 60)) > 5, "rather part of a word than little"


def test_synonyms_are_dropped_unless_another_class_has_the_name() -> None:
    names = ("tabby, tabby cat", "maillot", "maillot, tank suit", ", odd")
    assert short_name(0, names) == "tabby"
    assert short_name(1, names) == "maillot"
    assert short_name(2, names) == "maillot, tank suit"
    assert short_name(3, names) == ", odd"
    assert short_name(7, names) == short_name(7, None) == "class 7"


def test_a_crop_stands_in_a_frame_of_the_concepts_colour() -> None:
    crop = np.full((96, 96, 3), (1, 200, 1), np.uint8)
    entry = LegendEntry(BLUE, "Concept 1", 0.2, ["no class"], crop, 1)
    drawn = np.asarray(legend([entry], height=200))
    rows, cols = np.nonzero(where(drawn, (1, 200, 1)))
    frame = where(drawn, BLUE)
    assert np.ptp(rows) == np.ptp(cols) > 2 * 18, "as high as three lines"
    assert frame[:, : cols.min()].any()
    assert frame[:, cols.max() + 1 :].any()
    bare = np.asarray(legend([LegendEntry(BLUE, "Concept 1", 0.2, ["no class"], crop)], height=200))
    assert (bare != drawn).any(), "its number is on the corner"


def test_a_value_for_each_entry() -> None:
    with pytest.raises(UsageError, match="column 'cat' has 3 values, but there are 2 entries"):
        legend(table(BarColumn("cat", [1, 2, 3])), height=200)


def test_constant_and_undefined_values_have_a_picture() -> None:
    for values in ([0, 0], [float("nan"), 1], [float("inf"), -2], [-1e9, 1e-9]):
        assert legend(table(BarColumn("cat", values)), height=300).height >= 300


def test_panels_with_bars_have_their_legend_at_the_right_or_below() -> None:
    tile = np.zeros((400, 400, 3), np.uint8)
    columns = [BarColumn("cat", [1.0] * 5, "adds", total=("logit", 5.0))] * 3
    few = panel([("a", tile)], legend=table(*columns, count=5))
    assert few.width > 1.5 * few.height
    many = [BarColumn("cat", [1.0] * 24, "adds")] * 3
    wide = panel([("a", tile)] * 4, legend=table(*many, count=24))
    assert wide.width < 2400, "below"
    assert panel([("a", tile)], legend=Legend([])).size == panel([("a", tile)]).size


def test_crops_show_where_a_concept_peaks_and_fade_the_rest() -> None:
    photo = np.full((300, 400, 3), 100, np.uint8)
    photo[200:260, 300:360] = (250, 0, 0)
    heatmap = np.zeros((30, 40))
    heatmap[20:26, 30:36] = 0.8
    heatmap[2:4, 2:4] = 0.5
    before = photo.copy()
    crop = crop_around(photo, heatmap, side=60)
    assert crop.shape == (60, 60, 3)
    assert (crop[30, 30] == (250, 0, 0)).all(), "clear in the middle"
    assert (crop[[0, -1]] > 150).all(), "pale around it"
    red = (crop[..., 0] > 240) & (crop[..., 1] < 60)
    assert 0.5 < red.mean() < 0.75, "it fills the crop, with a margin"
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (64, 64)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_crops_of_any_photo(size: tuple[int, int], value: float) -> None:
    photo = np.zeros((*size, 3), np.uint8)
    for grid in ((1, 1), (7, 9), size):
        assert crop_around(photo, np.full(grid, value, np.float32)).shape == (96, 96, 3)

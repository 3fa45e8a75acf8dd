"""The page of a run in a real browser: the menu, filters, names, images, and many rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dff.colocalization.pages import run_view
from dff.maps import Grid
from dff.rendering import colors
from dff.report import (
    ClassTable,
    ConceptSection,
    Facts,
    ImageTable,
    RunPage,
    Thumbnail,
    run_page,
)
from dff.report.pictures import jpeg_uri
from tests.browser import opened, screenshot
from tests.colocalized import colocalize, photos, toy
from tests.test_report_photo import EVIL

WIDTHS = (360, 1280, 3840)
PARTS = ("concepts", "concept-1", "images", "image-0", "classes", "together", "errors", "about")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data = photos(root / "data", classes=("a", "b"))
    (data / "a" / "000.png").rename(data / "a" / "<img src=x onerror=alert(1)>.png")
    run = colocalize(data, root / "run", model=toy(), concepts=4)
    path = root / "report.html"
    path.write_text(run_page(run_view(run)), encoding="utf-8")
    return path


def large(count: int, k: int, classes: int, thumbnails: int) -> RunPage:
    """A made-up run."""
    rng = np.random.default_rng(0)
    names = [f"class {i} {EVIL if i == 1 else 'עברית' if i == 2 else ''}" for i in range(classes)]
    picture = jpeg_uri(rng.integers(0, 255, (60, 80, 3), np.uint8))
    one = Thumbnail(picture, 80, 60, [0, 1], rng.random((2, 4, 4)))
    section = [
        ConceptSection(f"Concept {i + 1}", f"Concept {i + 1}", tuple(map(int, color)), 0.1, 0.5, 10,
                       ["class 1"], [picture], picture, [((i + 1) % k, 5, 1.2)])
        for i, color in enumerate(colors(k))
    ]  # fmt: skip
    predicted = rng.integers(0, classes, count)
    return RunPage(
        "many", "run", ["about"], section,
        ImageTable(
            range(count), [f"folder/{i:06d}.jpg" for i in range(count)], [None] * count,
            [names[i] for i in predicted], rng.random(count), [-1] * count, rng.random((count, k)),
        ),
        {i: one for i in range(thumbnails)},
        {"rows": 4, "cols": 4, "height": 64, "width": 64, "stride": [16, 16], "offset": [8, 8]},
        np.ones((k, k)),
        [ClassTable("classes", names[:40], [3] * 40, rng.random((40, k)), "share", "share")],
        [Facts("Right against wrong", [], [], "unknown")],
    )  # fmt: skip


def go(page, part):
    page.evaluate("part => { location.hash = part; }", part)
    page.wait_for_function("part => document.body.dataset.ready === part", arg=part.split("-")[0])


def test_every_part_of_the_menu(chromium, report):
    with opened(chromium, report) as page:
        for link in page.locator(".menu a").all():
            link.click()
            assert link.get_attribute("aria-current") == "page"
            assert page.locator("main section").count()
        assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_parts_fit_every_width(chromium, report, width):
    with opened(chromium, report, width=width) as page:
        for part in PARTS:
            go(page, part)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, part
            screenshot(page, f"run-{part}-{width}")


def test_filters_leave_what_passes(chromium, report):
    with opened(chromium, report) as page:
        go(page, "images")
        status = page.locator("main [role=status]").first
        assert status.text_content().startswith("20 images of 20")
        right = page.get_by_label("right or wrong")
        right.select_option("1")
        shown = int(status.text_content().split()[0])
        right.select_option("0")
        assert shown + int(status.text_content().split()[0]) == 20
        right.select_option("")
        page.get_by_label("label", exact=True).select_option(label="a")
        assert status.text_content().startswith("10 images")
        page.get_by_label("text").fill("ONERROR")
        assert status.text_content().startswith("1 image of")
        page.click("text=clear filters")
        assert page.locator(".tile").count() == 20


def test_no_image_left_is_said_with_a_way_back(chromium, report):
    with opened(chromium, report) as page:
        go(page, "images")
        page.get_by_label("text").fill("no such image")
        assert page.is_visible("text=No image passes these filters.")
        page.click("text=show all images")
        assert page.locator(".tile").count() == 20


def test_images_by_concept_come_strongest_first(chromium, report):
    with opened(chromium, report) as page:
        go(page, "concept-2")
        page.click("text=its images")
        page.get_by_role("button", name="table").click()
        place = page.locator("th").all_text_contents().index("presence") + 1
        values = page.locator(f"tbody td:nth-child({place})").all_text_contents()
        shares = [float(value.rstrip("%")) for value in values]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] > shares[-1]
        assert page.get_by_label("concept", exact=True).input_value() == "2"


def test_an_image_is_explored_as_a_photo_is(chromium, report):
    with opened(chromium, report) as page:
        go(page, "images")
        page.click(".tile >> nth=1")
        page.hover(".stage canvas", position={"x": 200, "y": 150})
        before = page.evaluate("document.querySelector('.stage canvas').toDataURL()")
        page.click(".legend button >> nth=0")
        assert page.evaluate("document.querySelector('.stage canvas').toDataURL()") != before


def test_names_given_here_are_exported(chromium, report):
    with opened(chromium, report) as page:
        go(page, "concept-1")
        page.get_by_label("name").fill("it's <b>")
        assert "1 it's <b>" in page.text_content("h2")
        page.click(".menu a >> nth=0")
        page.wait_for_selector("textarea")
        command = page.input_value("textarea")
        assert command.endswith("""1 'it'\\''s <b>'""")
        with page.expect_download() as download:
            page.click("text=export names")
        assert json.loads(download.value.path().read_text())["1"] == "it's <b>"


def test_the_tables_are_sorted_by_the_keyboard(chromium, report):
    with opened(chromium, report) as page:
        go(page, "concept-1")
        head = page.locator("th button", has_text="images with both")
        head.focus()
        page.keyboard.press("Enter")
        values = [int(text) for text in page.locator("tbody td:nth-child(2)").all_text_contents()]
        assert values == sorted(values, reverse=True)


def test_fifty_thousand_images_of_five_thousand_classes(chromium, tmp_path):
    path = tmp_path / "large.html"
    path.write_text(run_page(large(50_000, 20, 5_000, 600)), encoding="utf-8")
    assert path.stat().st_size < 50_000_000
    with opened(chromium, path) as page:
        nodes = "document.getElementsByTagName('*').length"
        assert page.evaluate(nodes) < 5_000, "what nobody looks at is not drawn"
        go(page, "images")
        page.get_by_role("button", name="table").click()
        assert page.locator("tbody tr").count() == 50
        page.click("text=next →")
        assert "51 to 100 of 50,000" in page.text_content(".pager")
        page.get_by_label("text").fill("049999")
        page.wait_for_selector("text=1 image of 50,000")
        assert page.evaluate(nodes) < 20_000, "5,000 classes to choose from among them"


def test_three_hundred_concepts(chromium, tmp_path):
    path = tmp_path / "wide.html"
    path.write_text(run_page(large(30, 300, 10, 5)), encoding="utf-8")
    with opened(chromium, path) as page:
        assert page.locator(".tile").count() == 60
        go(page, "together")
        assert page.is_visible("text=240 more concepts")
        go(page, "classes")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        go(page, "image-20")
        assert page.is_visible("text=There is no picture of this image")


def test_cells_are_laid_where_the_grid_says(chromium, report):
    """The script interpolates as dff.maps.upsample does."""
    from dff.maps import upsample

    cells = np.arange(12, dtype=np.float32).reshape(3, 4) * 20
    grid = Grid.anchored(3, 4, 96, 128, (32.0, 32.0))
    given = {"rows": 3, "cols": 4, "height": 96, "width": 128, "stride": [32, 32],
             "offset": list(grid.offset)}  # fmt: skip
    with opened(chromium, report) as page:
        values = page.evaluate(
            "([cells, grid]) => Array.from(upsampled(cells, grid, 16, 12).values)",
            [cells.ravel().tolist(), given],
        )
    np.testing.assert_allclose(
        np.reshape(values, (12, 16)), upsample(cells, (12, 16), grid), atol=1
    )

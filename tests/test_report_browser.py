"""Pages in a real browser: what moves when it is touched, and nothing else."""

from __future__ import annotations

import pytest

from tests.browser import opened, screenshot
from tests.test_report_photo import EVIL, explained

WIDTHS = (360, 1280, 3840)


@pytest.fixture(scope="module")
def photo_file(tmp_path_factory):
    result = explained(2, name=EVIL)
    path = tmp_path_factory.mktemp("page") / "explanation.html"
    path.write_text(result.to_html(), encoding="utf-8")
    return path


def pixels(page, place=0):
    """Return a digest of what a canvas shows."""
    return page.evaluate("i => document.querySelectorAll('.stage canvas')[i].toDataURL()", place)


def test_hover_says_what_is_under_the_pointer(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        page.hover(".stage canvas", position={"x": 40, "y": 40})
        said = page.text_content(".readout")
        assert "Concept" in said
        assert "%" in said
        assert page.locator(".legend .under").count()
        page.mouse.move(2, 2)
        assert "none" in page.text_content(".readout")


def test_click_isolates_a_concept_and_shows_all_again(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        before = pixels(page)
        page.click(".legend button >> nth=1")
        assert pixels(page) != before
        assert page.get_attribute(".legend button >> nth=1", "aria-pressed") == "true"
        page.click("text=show all")
        assert pixels(page) == before
        page.click(".stage canvas", position={"x": 40, "y": 40})
        assert page.locator(".legend button[aria-pressed=true]").count() == 1


@pytest.mark.parametrize("name", ["concepts", "threshold"])
def test_sliders_redraw(chromium, photo_file, name):
    with opened(chromium, photo_file) as page:
        before = pixels(page)
        page.locator(f"input[aria-label={name}]").fill("0.9")
        assert pixels(page) != before


def test_sharp_or_smooth(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        before = pixels(page)
        page.click("text=smooth")
        assert pixels(page) != before
        page.click("text=sharp")
        assert pixels(page) == before


def test_grad_cam_beside_it_and_as_a_swipe(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        before = pixels(page, 1)
        page.select_option("select", "1")
        assert pixels(page, 1) != before
        page.click("text=swipe")
        assert page.locator(".stage canvas:visible").count() == 1
        half = pixels(page)
        page.locator(".swiper").fill("0.1")
        assert pixels(page) != half
        page.click("text=side by side")
        assert page.locator(".stage canvas:visible").count() == 2


def test_bars_are_sorted_and_sum_up_on_screen(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        card = page.locator(".bars").first

        def numbers(part):
            texts = card.locator(f"{part} .number").all_text_contents()
            return [float(text.replace("−", "-")) for text in texts]

        values, foot = numbers("tbody"), numbers("tfoot")
        assert values == sorted(values, reverse=True)
        assert sum(values) + sum(foot[:-1]) == pytest.approx(foot[-1], abs=0.005)
        card.get_by_text("by number").click()
        rows = card.locator("tbody th").all_text_contents()
        assert [row.strip() for row in rows] == ["Concept 1", "Concept 2", "Concept 3"]


def test_the_keyboard_does_what_the_mouse_does(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        page.focus(".stage canvas")
        page.keyboard.press("ArrowLeft")
        assert "%" in page.text_content(".readout")
        page.keyboard.press("Enter")
        assert page.locator(".legend button[aria-pressed=true]").count() == 1
        page.keyboard.press("Escape")
        assert page.locator(".legend button[aria-pressed=true]").count() == 0
        page.focus(".strip button >> nth=1")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready='1']")


def test_a_name_that_is_markup_is_shown_as_it_is(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        assert page.text_content("h1").startswith("<img src=x")
        assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(
    ("width", "scheme"), [*((width, "light") for width in WIDTHS), (WIDTHS[1], "dark")]
)
def test_pages_fit_every_width(chromium, photo_file, width, scheme):
    with opened(chromium, photo_file, width=width, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        screenshot(page, f"photo-{width}-{scheme}")


def test_print_leaves_out_what_is_to_be_touched(chromium, photo_file):
    with opened(chromium, photo_file) as page:
        page.emulate_media(media="print")
        assert page.locator(".controls:visible").count() == 0
        assert page.locator(".stage canvas:visible").count() == 2


def test_without_scripts_the_photo_is_there(chromium, photo_file):
    page = chromium.new_page(java_script_enabled=False)
    page.goto(photo_file.as_uri())
    assert page.locator("noscript img, main img").count() == 1
    page.close()


def test_a_frame_in_a_notebook_draws(chromium, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<body data-ready>{explained()._repr_html_()}</body>", encoding="utf-8")
    with opened(chromium, path) as page:
        frame = page.frame_locator("iframe")
        frame.locator(".legend button").first.click()
        assert frame.locator(".legend button[aria-pressed=true]").count() == 1

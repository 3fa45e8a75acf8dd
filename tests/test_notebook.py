"""What notebooks show: pages in frames, tables, and pictures where there is no HTML."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dff
from tests.colocalized import colocalize, photos, toy
from tests.test_report_photo import EVIL, explained

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples/8_notebook.ipynb"


def size_of(picture: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(picture)).size


@pytest.fixture(scope="module")
def result():
    return explained()


def test_an_explanation_is_a_page_in_a_frame_of_its_own(result):
    shown = result._repr_html_()
    assert shown.startswith("<iframe ")
    assert 'sandbox="allow-scripts"' in shown, "and no same origin: it cannot reach the notebook"
    inside = shown.split('srcdoc="')[1]
    assert inside.count('"') == 1, "the page is one attribute"
    assert "&lt;!DOCTYPE html&gt;" in inside


def test_and_a_picture_where_there_is_no_html(result):
    assert size_of(result._repr_png_()) == result.overlay().size


def test_a_bank_is_a_table_whose_names_stay_text(result):
    bank = result.bank.renamed({0: EVIL.replace("\u2028", "")})
    shown = bank._repr_html_()
    assert "<img" not in shown
    assert shown.count("<tr>") == 1 + len(bank)
    assert re.findall(r"background:(#\w{6})", shown) == [
        "#" + bytes(color.tolist()).hex() for color in bank.colors
    ]


def test_a_sweep_shows_curve_and_tree(tmp_path):
    rng = np.random.default_rng(0)
    swept = toy().sweep(rng.integers(0, 256, (32, 32, 3), np.uint8), concepts=range(1, 3))
    assert "Explained share and stability" in swept._repr_html_()
    assert size_of(swept._repr_png_()) == swept.curve().size
    assert swept.to_html().startswith("<!DOCTYPE html>")


def test_a_run_is_its_concepts(tmp_path):
    run = colocalize(photos(tmp_path / "data", 6), tmp_path / "run", model=toy(), concepts=3)
    shown = run._repr_html_()
    assert "3 concepts, 6 images" in shown
    assert shown.count("<tr>") == 4
    assert size_of(run._repr_png_()) == Image.open(tmp_path / "run/concepts.png").size


def test_representations_are_one_readable_line(result):
    for shown in (result, result.bank):
        assert len(repr(shown)) < 300
        assert "\n" not in repr(shown)
    assert isinstance(result, dff.Explanation)


@pytest.mark.slow
def test_the_example_runs_and_shows_itself():
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    for name in ("photo", "sweep"):
        shown = outputs[name][-1]["data"]
        assert shown["text/html"].startswith("<iframe")
        assert shown["image/png"]
    assert outputs["bank"][-1]["data"]["text/html"].startswith("<table")

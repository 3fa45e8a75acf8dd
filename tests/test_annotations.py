"""Annotations are strangers' files: each that cannot be is refused in one line, with its place."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from pycocotools import mask as coco

from dff.colocalization.annotations import read_annotations
from dff.errors import UsageError

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 12, "height": 8}
CATEGORY = {"id": 1, "name": "horse"}
ANNOTATION = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
NAN, INF = float("nan"), float("inf")
ABSENT = object()


def changed(entry, changes):
    return {k: v for k, v in {**entry, **changes}.items() if v is not ABSENT}


def coco_json(*, image=(), category=(), annotation=(), **content):
    return {
        "images": [changed(IMAGE, dict(image))],
        "categories": [changed(CATEGORY, dict(category))],
        "annotations": [changed(ANNOTATION, dict(annotation))],
        **content,
    }


def written(tmp_path, content):
    path = tmp_path / "known.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refused(path, match):
    """Read and draw all; what comes is one printable line that names the file."""
    with pytest.raises(UsageError, match=match) as caught:
        for one in read_annotations(path):
            for name in one.masks:
                one.mask(name)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    assert path.name in message


def test_polygons_and_encodings_are_drawn_as_coco_draws_them(tmp_path):
    cells = np.zeros((8, 12), np.uint8)
    cells[6:, 8:] = 1
    rle = coco.encode(np.asfortranarray(cells))
    pieces = [[SQUARE], {"size": [8, 12], "counts": rle["counts"].decode()}]
    content = coco_json(annotations=[{**ANNOTATION, "segmentation": one} for one in pieces])
    (known,) = read_annotations(written(tmp_path, content))
    expected = coco.decode(coco.merge([*coco.frPyObjects([SQUARE], 8, 12), rle]))
    assert np.array_equal(known.mask("horse"), expected > 0)
    assert known.boxes == {"horse": [(1, 1, 5, 5)] * 2}


@pytest.mark.parametrize("key", ["width", "height"])
@pytest.mark.parametrize(
    "value", [ABSENT, None, 0, -1, 2.5, 10**9, 10**400, NAN, INF, "12", [12], {}, True]
)
def test_sizes_that_cannot_be(tmp_path, key, value):
    refused(written(tmp_path, coco_json(image={key: value})), f"image 0: its (size|{key})")


def test_an_image_declared_enormous_is_never_allocated(tmp_path):
    huge = coco_json(image={"width": 10**5, "height": 10**5})
    refused(written(tmp_path, huge), "image 0: its size of 100000 x 100000 is over")


@pytest.mark.parametrize(
    "box",
    [ABSENT, None, [], [1, 1, 4], [1, 1, 4, 4, 4], [NAN, 1, 4, 4], [1, INF, 4, 4], [1, 1, -4, 4],
     [1, 1, 4, -4], ["1", 1, 4, 4], [1, 1, 1e300, 1e300], [1, 1, 10**400, 4], {"x": 1}, "1 1 4 4",
     [[1], 1, 4, 4], [None] * 4],
)  # fmt: skip
def test_boxes_that_cannot_be(tmp_path, box):
    refused(written(tmp_path, coco_json(annotation={"bbox": box})), "annotation 0: its bbox")


@pytest.mark.parametrize(
    "segmentation",
    ["abc", 3, {"a": 1}, {"size": [8, 12]}, {"size": 8, "counts": [96]},
     {"size": [8], "counts": [96]}, {"size": [8, 12], "counts": [95]},
     {"size": [8, 12], "counts": [200, -104]}, {"size": [8, 12], "counts": [2**63, 1]},
     {"size": [8, 12], "counts": [96.0]}, {"size": [8, 12], "counts": [NAN]},
     {"size": [8, 12], "counts": []}, {"size": [8, 12], "counts": ""},
     {"size": [8, 12], "counts": "\ud800"}, {"size": [8, 12], "counts": "oooooooooooooooo0"},
     {"size": [8, 12], "counts": "P" * 10**5}, {"size": [8, 12], "counts": "o"},
     {"size": [8, 12], "counts": {"a": 1}}, {"size": [8, 12], "counts": [[96]]},
     {"size": [10**5, 10**5], "counts": [10**10]}, {"size": [[8], 12], "counts": [96]},
     {"size": [True, 12], "counts": [12]},
     [[]], [[1, 1, 5, 1]], [[*SQUARE, 1]], [[NAN, *SQUARE[1:]]], [[INF, *SQUARE[1:]]],
     [["1", *SQUARE[1:]]], [SQUARE, 3], SQUARE, [[1e8, *SQUARE[1:]]], [[10**400, *SQUARE[1:]]],
     [[[1, 1], [5, 1], [5, 5]]], [[-12, -8, 24, 16] * 30000]],
)  # fmt: skip
def test_segmentations_that_cannot_be(tmp_path, segmentation):
    content = coco_json(annotation={"segmentation": segmentation})
    refused(written(tmp_path, content), "annotation 0: ")


@pytest.mark.parametrize("value", [ABSENT, None, [1], {"a": 1}, 1.5, NAN, True, 10**400])
def test_ids_that_cannot_be(tmp_path, value):
    for key, match in (("image", "image 0: its id"), ("category", "category 0: its id")):
        refused(written(tmp_path, coco_json(**{key: {"id": value}})), match)
    for key in ("image_id", "category_id"):
        content = coco_json(annotation={key: value})
        refused(written(tmp_path, content), f"annotation 0: its {key}")


def test_ids_that_are_not_there_or_there_twice(tmp_path):
    path = written(tmp_path, coco_json(annotation={"image_id": 2}))
    refused(path, "annotation 0: there is no image '2'")
    refused(written(tmp_path, coco_json(images=[IMAGE] * 2)), "image 1: the id '1' occurs twice")
    path = written(tmp_path, coco_json(categories=[CATEGORY] * 2))
    refused(path, "category 1: the id '1' occurs twice")


@pytest.mark.parametrize("value", [ABSENT, None, "", 3, ["a"], {"a": 1}])
def test_names_that_are_none(tmp_path, value):
    refused(written(tmp_path, coco_json(image={"file_name": value})), "image 0: its file_name")
    refused(written(tmp_path, coco_json(category={"name": value})), "category 0: its name")


def test_strange_names_are_kept_as_they_are(tmp_path):
    content = coco_json(image={"file_name": "\ud800\x1b[2J"}, category={"name": "\0\x1b]0;\ud800"})
    (known,) = read_annotations(written(tmp_path, content))
    assert known.file_name == "\ud800\x1b[2J"
    assert list(known.boxes) == ["\0\x1b]0;\ud800"]


@pytest.mark.parametrize("key", ["categories", "images", "annotations"])
@pytest.mark.parametrize("value", [None, 3, "abc", {"a": 1}])
def test_lists_that_are_missing(tmp_path, key, value):
    refused(written(tmp_path, coco_json(**{key: value})), f"no list of {key}")


@pytest.mark.parametrize("key", ["categories", "images", "annotations"])
@pytest.mark.parametrize("value", [None, 3, "abc", [1]])
def test_entries_that_are_none(tmp_path, key, value):
    refused(written(tmp_path, coco_json(**{key: [value]})), "its (id|image_id) is no whole number")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\0" * 100, b"[" * 10**6, b'{"a":' * 10**6, b"[]", b"3",
     b"1" * 10**5, b"null", b'"\xed\xa0\x80"', b"{}"],
)  # fmt: skip
def test_files_that_are_no_json(tmp_path, content):
    refused(written(tmp_path, content), "not COCO's format")


def test_a_file_over_the_limit_is_not_read(tmp_path):
    path = tmp_path / "known.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    refused(path, "larger than 512 MiB")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "known.json")
    refused(tmp_path / "known.json", "not a regular file")
    os.mkfifo(tmp_path / "a.xml")
    with pytest.raises(UsageError, match=r"a\.xml' are not a regular file"):
        read_annotations(tmp_path)


def test_what_is_not_there(tmp_path):
    refused(tmp_path / "none.json", "there are no annotations")
    with pytest.raises(UsageError, match="there is no annotation in"):
        read_annotations(tmp_path)


BOX = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
OBJECT = f"<object><name>horse</name>{BOX}</object>"
SIZE = "<size><width>12</width><height>8</height></size>"
VOC = f"<annotation><filename>a.jpg</filename>{SIZE}{OBJECT}</annotation>"
BOMB = (
    '<!DOCTYPE a [<!ENTITY e0 "aaaaaaaaaa">'
    + "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    + "]>"
    + VOC.replace("horse", "&e11;")
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>' + VOC.replace("horse", "&e;")


def voc(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "a.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def test_voc_counts_from_one_and_may_leave_out_the_size(tmp_path):
    voc(tmp_path, VOC.replace(SIZE, ""))
    (known,) = read_annotations(tmp_path)
    assert known.boxes == {"horse": [(1, 1, 5, 5)]}
    assert (known.width, known.height) == (0, 0)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        *((VOC.replace("<xmin>2<", f"<xmin>{text}<"), "object 0: its xmin is no number")
          for text in ("two", "", "nan", "inf", "1e300", "9" * 5000, "&#x661;0x1")),
        (VOC.replace("<xmin>2</xmin>", ""), "object 0: its xmin is no number"),
        (VOC.replace("<xmax>5<", "<xmax>1<"), "object 0: its box ends before it starts"),
        (VOC.replace("<name>horse</name>", ""), "object 0 has no name"),
        *((VOC.replace("<width>12<", f"<width>{text}<"), "its (size|width)")
          for text in ("-1", "2.5", "wide", "1000000000", "1e400", "nan")),
        (VOC[:-5], "not Pascal VOC's XML"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "not Pascal VOC's XML"),
        (b"", "not Pascal VOC's XML"),
        ('<?xml version="1.0" encoding="none"?>' + VOC, "not Pascal VOC's XML"),
        ('<?xml version="1.0" encoding="big5"?>' + VOC, "not Pascal VOC's XML"),
        (BOMB, "declares a document type"),
        (OUTSIDE, "declares a document type"),
    ],
)  # fmt: skip
def test_xml_that_cannot_be(tmp_path, content, match):
    path = voc(tmp_path, content)
    with pytest.raises(UsageError, match=match) as caught:
        read_annotations(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert path.name in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_bomb_in_another_encoding(tmp_path, encoding):
    voc(tmp_path, BOMB, encoding)
    with pytest.raises(UsageError, match="declares a document type"):
        read_annotations(tmp_path)


def test_deep_and_large_xml(tmp_path):
    path = voc(tmp_path, "<a>" * 10**5 + "</a>" * 10**5)
    with pytest.raises(UsageError, match="there is no annotation"):
        read_annotations(tmp_path)
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="larger than 16 MiB"):
        read_annotations(tmp_path)

"""A video as a dataset."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dff.colocalization import open_dataset
from dff.errors import UsageError
from tests.colocalized import colocalize, digest, small_chunks, toy

SIZE = (48, 64)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A bright square that moves from left to right over 20 frames."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (SIZE[1], SIZE[0]))
    if not writer.isOpened():
        pytest.skip("OpenCV cannot encode MP4 here")
    for i in range(20):
        frame = np.full((*SIZE, 3), 40, np.uint8)
        frame[16:32, 2 * i : 2 * i + 16] = (30, 120, 250)
        writer.write(frame)
    writer.release()
    return path


def test_frames_are_images_in_any_order(clip):
    video = open_dataset(clip)
    assert (video.kind, len(video)) == ("video", 20)
    frames = [video.source(i) for i in range(20)]
    assert frames[3].shape == (*SIZE, 3)
    for i in (7, 2, 19, 0):
        assert np.array_equal(video.source(i), frames[i])
    assert frames[10][20, 25, 0] > 200 > frames[10][20, 5, 0]


def test_a_video_is_factorized_and_drawn(clip, tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    run = colocalize(clip, tmp_path / "a", model=toy(), concepts=2, batch=4, workers=3)
    table = run.table("instances").to_pandas() if pytest.importorskip("pandas") else None
    centres = []
    for concept in (1, 2):
        mine = table[(table["concept"] == concept) & table["x0"].notna()]
        centres.append(np.polyfit(mine["image_id"], (mine["x0"] + mine["x1"]) / 2, 1)[0])
    assert max(centres) > 1, "one concept follows the square, 2 pixels a frame"
    drawn = open_dataset(run.path / "overlay.mp4")
    assert len(drawn) == 20
    assert drawn.source(5).shape == (*SIZE, 3)
    again = colocalize(clip, tmp_path / "b", model=toy(), concepts=2, batch=4, workers=1)
    assert digest(again.path) == digest(run.path)


def test_what_is_no_video(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is not a video that OpenCV can decode"):
        open_dataset(tmp_path / "clip.mp4")

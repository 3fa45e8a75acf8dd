"""Models of clips: time is an axis of the grid, and every frame has its maps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import dff
from dff.cli import main
from dff.errors import ImageError, UsageError
from dff.images import read_clip
from dff.rendering import film
from tests.test_grids import ClipNet
from tests.toys import images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, frames=8)


@pytest.fixture
def moving():
    """A clip of 12 frames: a red square goes to the right over grey, in time with the frames."""
    frames = np.full((12, 40, 60, 3), 90, np.uint8)
    for i, frame in enumerate(frames):
        frame[12:28, 4 * i : 4 * i + 16] = (250, 30, 30)
    return frames


@pytest.fixture
def video(tmp_path, moving):
    import cv2

    path = tmp_path / "ride.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (60, 40))
    for frame in moving:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_a_clip_is_read_as_so_many_frames_evenly_spaced(moving, video):
    pictures = read_clip(moving, 4)
    for picture, index in zip(pictures, (1, 4, 7, 10), strict=True):
        assert np.array_equal(picture.pixels, moving[index])
    assert [picture.name for picture in pictures] == [f"clip-0{i}" for i in range(1, 5)]
    assert len(read_clip(list(moving[:3]), 8)) == 8
    decoded = read_clip(video, 4)
    assert [picture.name for picture in decoded] == [f"ride-0{i}" for i in range(1, 5)]
    for picture, index in zip(decoded, (1, 4, 7, 10), strict=True):
        assert abs(picture.pixels.astype(int) - moving[index]).mean() < 12


def test_slices_of_a_volume_keep_their_precision():
    slices = [np.full((4, 6), 257 * i + 7, np.uint16) for i in range(3)]
    for picture, level in zip(read_clip(slices, 3), range(3), strict=True):
        assert picture.bands.shape == (4, 6, 1)
        np.testing.assert_allclose(picture.bands, (257 * level + 7) / 257, rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.mp4", ImageError, "there is no video nowhere.mp4"),
        ([], UsageError, "at least one frame"),
        ("photo.jpg", UsageError, "a clip is the path of a video"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], UsageError, "of one size"),
    ],
)
def test_what_is_no_clip(source, error, message):
    with pytest.raises(error, match=message):
        read_clip(source, 2)


def test_a_file_that_is_no_video(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(ImageError, match="is not a video that OpenCV can decode"):
        read_clip(path, 2)


def test_every_frame_of_a_clip_has_its_maps(moving):
    model = seeded(ClipNet)
    with untouched(model):
        explainer = dff.Explainer(model, preprocessing=PREP)
        result = explainer(moving, concepts=3)
        found = result.contributions(2)
    assert len(result) == 8
    assert len(result.clips) == 1
    assert result.clips[0].name == "clip"
    assert result.maps().shape == (3, 8, 16)
    assert result.heatmaps().shape == (3, 40, 60)
    assert result.logits.shape == (8, 5)
    assert torch.equal(result.logits[0], result.logits[7])
    assert float(found.relative_gap.max()) < 1e-2
    tensor = torch.stack([PREP.to_tensor(frame) for frame in read_clip(moving, 8)], 1)
    with torch.no_grad():
        torch.testing.assert_close(result.logits[0], model(tensor[None])[0])
    torch.testing.assert_close(explainer(tensor, concepts=3).logits, result.logits)


def test_a_concept_moves_with_what_it_shows(moving):
    result = dff.Explainer(seeded(ClipNet), preprocessing=PREP)(moving, concepts=2)
    cols = torch.arange(16) + 0.5
    ways = []
    for concept in range(2):
        maps = np.stack([photo.maps()[concept] for photo in result.photos])
        over = torch.from_numpy(abs(maps - np.median(maps, (1, 2), keepdims=True)) ** 2).sum(1)
        centres = (over * cols).sum(1) / over.sum(1).clamp_min(1e-9)
        ways.append(float(centres[-1] - centres[0]))
    assert max(ways) > 4, "of 16 columns the square goes over more than half"


def test_grad_cam_of_a_clip_is_on_one_scale(moving):
    result = dff.Explainer(seeded(ClipNet), preprocessing=PREP)(moving, concepts=2)
    cams = np.stack([photo.cam(1) for photo in result.photos])
    assert cams.shape == (8, 40, 60)
    assert 0.8 < cams.max() <= 1
    assert len({round(float(cam.max()), 3) for cam in cams}) > 1


def test_what_is_asked_of_photos_alone_says_so(moving, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(moving[0]).save(tmp_path / "photos" / "one.png")
    explainer = dff.Explainer(seeded(ClipNet), preprocessing=PREP)
    result = explainer(moving, concepts=2)
    with pytest.raises(UsageError, match="a check is for photos"):
        result.check(0)
    with pytest.raises(UsageError, match="the evidence 'blur' is for photos"):
        result.evidence("blur", 0)
    assert result.evidence("ablation", 0).values.shape[-1] == 2
    with pytest.raises(UsageError, match="finer grids are for photos"):
        explainer.finer(2)
    with pytest.raises(UsageError, match=r"expected a tensor \(3, 8, height, width\)"):
        explainer(images(1, 3, 4, 32, 32))
    with pytest.raises(UsageError, match="takes clips, and a dataset is of photos"):
        dff.colocalize(tmp_path / "photos", tmp_path / "out", model=explainer)


def test_a_sweep_of_a_clip(moving):
    sweep = dff.Explainer(seeded(ClipNet), preprocessing=PREP).sweep(moving, concepts=range(2, 4))
    for explanation, count in zip(sweep.explanations, (2, 3), strict=True):
        assert len(explanation.bank) == count
        assert explanation.photos[3].layer_coefficients.shape[0] == count
        assert float(explanation.contributions(0).relative_gap.max()) < 1e-2


def test_a_video_for_a_model_of_photos(video):
    from tests.toys import ConvNet

    prep = dff.Preprocessing(size=32)
    with pytest.raises(UsageError, match="is a video, and the model takes photos"):
        dff.Explainer(seeded(ConvNet), preprocessing=prep)(str(video))


def test_frames_are_set_in_rows_that_leave_few_places_empty():
    frames = [np.full((30, 40, 3), i, np.uint8) for i in range(16)]
    sheet = film(frames)
    assert sheet.shape == (4 * 31 - 1, 4 * 41 - 1, 3)
    assert sheet[0, 41, 0] == 1
    assert sheet[31, 0, 0] == 4
    assert np.array_equal(film(frames[:1]), frames[0])


def test_a_video_from_the_command_line(video, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import torch\nfrom tests.test_grids import ClipNet\n"
        "def build():\n    torch.manual_seed(0)\n    return ClipNet()\n"
    )
    words = ["analyze", str(video), "--model", "net.py:build", "--size", "32", "-k", "2"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", "out", "--json"])
    assert not ended.value.code
    report = json.loads(capsys.readouterr().out)
    assert len(report["images"]) == 16
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        "ride_concepts.png", "ride_panel.png",
    ]  # fmt: skip
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 40)).save(photo)
    with pytest.raises(SystemExit):
        main(["analyze", str(photo), *words[2:], "--out", "other"])
    assert "takes clips: name videos" in capsys.readouterr().err


def test_video_networks_by_name():
    assert {"r3d_18", "swin3d_t"} <= set(dff.list_models())

import pytest
import torch

from dff.activations.layouts import Layout
from dff.activations.recognition import detect_layout


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 2048, 7, 7), (224, 224), Layout("maps", 7, 7)),
        ((1, 7, 7, 768), (224, 224), Layout("channels_last", 7, 7)),
        ((1, 512, 7, 10), (224, 320), Layout("maps", 7, 10)),
        ((1, 1280, 8, 12), (225, 353), Layout("maps", 8, 12)),
        ((1, 8, 10, 512), (250, 300), Layout("channels_last", 8, 10)),
        ((1, 197, 768), (224, 224), Layout("tokens", 14, 14, 1)),
        ((1, 198, 768), (224, 224), Layout("tokens", 14, 14, 2)),
        ((1, 261, 768), (224, 224), Layout("tokens", 16, 16, 5)),
        ((1, 49, 768), (224, 224), Layout("tokens", 7, 7)),
        ((1, 14 * 20 + 1, 384), (224, 320), Layout("tokens", 14, 20, 1)),
        ((1, 4 * 4 + 5, 384), (64, 64), Layout("tokens", 4, 4, 5)),  # not 4 x 5 and a class token
        ((1, 3, 5, 9), (5, 9), Layout("maps", 5, 9)),
        ((1, 2048, 1, 1), (224, 224), None),
        ((1, 1000), (224, 224), None),
        ((1, 1, 768), (224, 224), None),
    ],
)
def test_layouts_are_recognised(shape, size, expected):
    assert detect_layout(shape, size) == expected


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout("maps", 3, 4), (2, 5, 3, 4)),
        (Layout("channels_last", 3, 4), (2, 3, 4, 5)),
        (Layout("tokens", 3, 4, 2), (2, 14, 5)),
        (Layout("tokens", 3, 4), (2, 12, 5)),
    ],
)
def test_writing_back_undoes_reading(layout, shape):
    output = torch.rand(shape)
    maps = layout.to_maps(output)
    assert maps.shape == (2, 5, 3, 4)
    assert torch.equal(layout.from_maps(maps, output), output)

"""Where cells are centred by the graph, against the pixels that their gradient reaches."""

import pytest
import torch
from torch import Tensor, nn

from dff.activations.layers.centres import centres


def conv(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(2, 2, kernel, stride, padding, dilation, bias=False)
    nn.init.ones_(layer.weight)
    return layer


class Residual(nn.Module):
    """x + f(x), times a gate that has seen all of x."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.gate = inner, conv(1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        return gate * (x + self.inner(x))


def seen(maps: Tensor, row: int, inputs: Tensor) -> float:
    """Return the middle of the rows that a cell of the middle column depends on, in pixels."""
    (gradient,) = torch.autograd.grad(
        maps[0, 0, row, maps.shape[3] // 2], inputs, retain_graph=True
    )
    rows = gradient.abs().amax((0, 1, 3)).nonzero()
    return float(rows.min() + rows.max() + 1) / 2


NETWORKS = {
    "odd, padded": [conv(7, 2, 3), conv(3, 2, 1), conv(3, 1, 1)],
    "padded at the end": [
        nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 2), nn.ZeroPad2d((1, 2, 1, 2)), conv(5, 2)
    ],
    "patches": [conv(4, 4), conv(2, 2)],
    "not padded": [conv(3, 2), conv(3), conv(3, 2)],
    "dilated": [conv(3, 2, 1), conv(3, 1, 2, 2), conv(3, 1, 1, 2)],
    "pools": [conv(3, 1, 1), nn.AvgPool2d(2), conv(3, 1, 1), nn.AvgPool2d(3, 2, 1)],
    "reflected": [nn.ReflectionPad2d((1, 0, 2, 0)), conv(3, 2), nn.ReplicationPad2d(1), conv(3, 2)],
    "cut off": [nn.ZeroPad2d((-3, 0, -3, 0)), conv(3, 2, 1)],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_centres_are_the_middles_of_what_cells_see(name):
    inputs = torch.rand(1, 2, 64, 64, requires_grad=True)
    maps = nn.Sequential(*NETWORKS[name])(inputs)
    found = centres(maps, inputs)
    assert found is not None
    stride, first = found
    for row in (maps.shape[2] // 2 - 1, maps.shape[2] // 2):
        assert first + stride * row == seen(maps, row, inputs)


def test_the_way_goes_round_a_gate():
    inputs = torch.rand(1, 2, 64, 64, requires_grad=True)
    maps = Residual(conv(3, 1, 1))(conv(3, 2, 1)(inputs))
    assert centres(maps, inputs) == (2, 0.5)


def test_max_pools_of_clips_count_along_the_rows():
    inputs = torch.rand(1, 1, 8, 32, 48, requires_grad=True)
    maps = nn.MaxPool3d((2, 4, 2))(nn.Conv3d(1, 3, (3, 3, 5), (1, 2, 1), (1, 0, 2))(inputs))
    assert centres(maps[:, :, 2], inputs) == (8, 4.5)


def test_rows_that_are_left_out_count():
    inputs = torch.rand(1, 2, 64, 64, requires_grad=True)
    assert centres(conv(3, 2, 1)(inputs[:, :, 6:, 2:]), inputs) == (2, 6.5)


@pytest.mark.parametrize(
    "unknown",
    [
        lambda x: nn.functional.interpolate(x, scale_factor=0.5),
        lambda x: nn.functional.adaptive_avg_pool2d(x, 16),
        lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1),
        lambda x: nn.ConvTranspose2d(2, 2, 2, 2)(conv(2, 4)(x)),
        lambda x: x.detach() @ torch.rand(64, 64, requires_grad=True),
    ],
)
def test_what_is_not_known_step_by_step_is_left_open(unknown):
    inputs = torch.rand(1, 2, 64, 64, requires_grad=True)
    assert centres(unknown(inputs), inputs) is None

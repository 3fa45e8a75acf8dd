"""Seeded toy networks, and checks that nothing is left behind on a model."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import nn


class PixelNet(nn.Module):
    """Activations that are the input's own pixels; a pooling-and-linear head."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(3, classes)

    def forward(self, x):
        return self.fc(self.pool(self.body(x)).flatten(1))


class ConvNet(nn.Module):
    """Two strided convolutions with BatchNorm, dropout and an in-place ReLU; stride 4."""

    def __init__(self, channels: int = 12, classes: int = 5, *, relu: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.layer4 = nn.Sequential(
            nn.Conv2d(8, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True) if relu else nn.Identity(),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.layer4(self.stem(x))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


class TokenNet(nn.Module):
    """A small transformer: patches of 8 px, one class token, two blocks, a class-token head."""

    def __init__(self, width: int = 16, classes: int = 5, size: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (size // 8) ** 2 + 1, width))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, 2, 32, batch_first=True, activation="gelu", norm_first=True
                )
                for _ in range(3)
            )
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.blocks(x)[:, 0])


def seeded(kind, *args, seed: int = 0, **kwargs) -> nn.Module:
    """Build a toy with random weights from its own seed, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(*args, **kwargs).eval()


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Seeded random inputs."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def untouched(model: nn.Module):
    """Fail if hooks, modes, parameters, buffers, gradients or attributes differ afterwards."""

    def state():
        return [
            (
                name,
                module.training,
                sorted(vars(module)),
                [list(hooks) for hooks in _hook_dicts(module)],
                [(p.requires_grad, p.grad is None) for p in module.parameters(recurse=False)],
            )
            for name, module in model.named_modules()
        ]

    before, weights = state(), {k: v.clone() for k, v in model.state_dict().items()}
    grad_mode, rng = torch.is_grad_enabled(), torch.random.get_rng_state()
    try:
        yield
    finally:
        assert state() == before
        for key, value in model.state_dict().items():
            assert torch.equal(value, weights[key]), key
        assert torch.is_grad_enabled() == grad_mode
        assert torch.equal(torch.random.get_rng_state(), rng)


def _hook_dicts(module: nn.Module):
    return [
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    ]

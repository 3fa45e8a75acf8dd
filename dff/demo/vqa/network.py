"""The network that answers questions: it looks where the question says, and reads off the answer.

The architecture is that of Kazemi & Elqursh, "Show, Ask, Attend, and Answer", 2017, in small: the
maps of a residual network's last stage, normalised over channels; a question through a word
embedding and an LSTM; two glimpses of attention; a classifier over answers. Two maps of where each
cell lies join the others, so that *where* can be answered.

Its weights (float16, beside this file) come from ``examples/vqa/train.py``.
"""

from __future__ import annotations

from importlib import resources

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from dff.demo.model import CreatureNet, trained
from dff.demo.vqa.questions import ANSWERS
from dff.demo.vqa.words import PAD, VOCABULARY

__all__ = ["VQANet", "load"]

CHANNELS, EMBEDDED, READ, SHARED, HIDDEN, GLIMPSES = 128, 48, 128, 96, 192, 2
SOFT = 10.0
"""What is added to a cell's norm: cells where little is active stay small, parts become about 1."""
_WEIGHTS = "weights.safetensors"


class VQANet(nn.Module):
    """Pictures, questions and their lengths to logits (n, answers).

    The picture's target layer is ``backbone.layer4``, the words' ``text.embedding``.
    """

    def __init__(self, answers: int = len(ANSWERS), words: int = len(VOCABULARY)) -> None:
        super().__init__()
        self.backbone = CreatureNet()
        del self.backbone.avgpool, self.backbone.fc
        self.text = TextReader(words)
        self.attention = Attention()
        self.classifier = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(GLIMPSES * (CHANNELS + 2) + READ, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(HIDDEN, answers),
        )

    def forward(self, images: Tensor, questions: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (n, answers).

        Args:
            images: (n, 3, height, width) normalised.
            questions: (n, words) int64 numbers of words, padded.
            lengths: (n,) how many words each has.
        """
        logits, _ = self.answered(self.backbone.maps(images), self.text(questions, lengths))
        return logits

    def answered(self, maps: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, answers), and the attention (n, glimpses, rows · cols).

        Args:
            maps: (n, channels, rows, cols) of ``layer4``.
            read: (n, features) of the questions.
        """
        maps = maps / (maps.norm(dim=1, keepdim=True) + SOFT)
        weights = self.attention(maps, read).flatten(2).softmax(-1)
        seen = torch.cat([maps, _places(maps)], 1).flatten(2)
        glimpses = torch.einsum("ngs,ncs->ngc", weights, seen).flatten(1)
        logits: Tensor = self.classifier(torch.cat([glimpses, read], 1))
        return logits, weights


class TextReader(nn.Module):
    """Word numbers (n, words) and lengths (n,) to features (n, features): the LSTM's last cell."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, EMBEDDED, padding_idx=PAD)
        self.drop = nn.Dropout(0.1)
        self.tanh = nn.Tanh()
        self.lstm = nn.LSTM(EMBEDDED, READ, batch_first=True)

    def forward(self, questions: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.tanh(self.drop(self.embedding(questions)))
        packed = pack_padded_sequence(
            embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, (_, cell) = self.lstm(packed)
        return cell[0]


class Attention(nn.Module):
    """Maps (n, channels, rows, cols) and features (n, features) to (n, glimpses, rows, cols)."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(CHANNELS, SHARED, 1, bias=False)
        self.question = nn.Linear(READ, SHARED)
        self.relu = nn.ReLU()
        self.glimpses = nn.Conv2d(SHARED, GLIMPSES, 1)

    def forward(self, maps: Tensor, read: Tensor) -> Tensor:
        asked = self.question(read)[:, :, None, None]
        glimpses: Tensor = self.glimpses(self.relu(self.image(maps) + asked))
        return glimpses


def _places(maps: Tensor) -> Tensor:
    """Return x and y of the cells, from -1 to 1, as maps (n, 2, rows, cols)."""
    rows, cols = maps.shape[-2:]
    y = torch.linspace(-1, 1, rows, device=maps.device, dtype=maps.dtype)
    x = torch.linspace(-1, 1, cols, device=maps.device, dtype=maps.dtype)
    there = torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols)])
    return there.expand(len(maps), -1, -1, -1)


def load() -> VQANet:
    """Return the trained network on the CPU, float32, in evaluation mode.

    Raises:
        ModelError: the weights are missing from the installation.
    """
    return trained(VQANet(), resources.files("dff.demo.vqa") / _WEIGHTS, "examples/vqa/train.py")

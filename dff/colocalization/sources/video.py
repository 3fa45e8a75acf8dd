"""A video as a dataset of frames, and a video of its concepts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dff.colocalization.sources.dataset import Dataset
from dff.errors import ImageError, OutputError, UsageError
from dff.images import Source

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["VideoDataset", "write_video"]


class VideoDataset(Dataset):
    """The frames of a video, which is decoded forwards; readers ask for them nearly in order."""

    def __init__(self, path: str, count: int, rate: float) -> None:
        super().__init__(
            "video",
            str(Path(path).absolute()),
            [f"frame {i}" for i in range(count)],
            [None] * count,
        )
        self.path = path
        self.rate = rate
        self._decoder = _Decoder(path)

    @classmethod
    def open(cls, path: str) -> VideoDataset:
        """Open a video and count its frames (headers are not always right).

        Raises:
            UsageError: OpenCV cannot decode it.
        """
        capture = cv2.VideoCapture(path)
        rate = float(capture.get(cv2.CAP_PROP_FPS)) or 25.0
        count = 0
        while capture.grab():
            count += 1
        capture.release()
        if not count:
            raise UsageError(f"{path!r} is not a video that OpenCV can decode; convert it to MP4")
        return cls(path, count, rate)

    def file(self, index: int) -> str:
        return self.path

    def source(self, index: int) -> Source:
        return self._decoder.frame(index)


class _Decoder:
    """Decodes forwards, and keeps what was passed by until another thread asks for it."""

    KEPT = 256

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.capture: Any = None
        self.next = 0
        self.waiting: dict[int, np.ndarray] = {}

    def frame(self, index: int) -> np.ndarray:
        """Return a frame as uint8 (height, width, 3), RGB."""
        with self.lock:
            if index in self.waiting:
                return self.waiting.pop(index)
            if self.capture is None or index < self.next:
                self.capture, self.next = cv2.VideoCapture(self.path), 0
                self.waiting.clear()
            while self.next <= index:
                near = index - self.next <= self.KEPT // 2
                if not self.capture.grab():
                    raise ImageError(f"frame {index} of {self.path} cannot be decoded")
                if near:
                    self.waiting[self.next] = self._retrieve(index)
                self.next += 1
            while len(self.waiting) > self.KEPT:
                self.waiting.pop(next(iter(self.waiting)))
            return self.waiting.pop(index)

    def _retrieve(self, index: int) -> np.ndarray:
        decoded, frame = self.capture.retrieve()
        if not decoded:
            raise ImageError(f"frame {index} of {self.path} cannot be decoded")
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def write_video(path: Path, frames: Iterable[np.ndarray], rate: float) -> Path:
    """Write frames, uint8 (height, width, 3) RGB of one size, as MP4.

    Raises:
        OutputError: OpenCV cannot encode it, or the disk is full.
    """
    writer: Any = None
    try:
        for frame in frames:
            if writer is None:
                size = (frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2)  # codecs want even sides
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise OutputError(f"OpenCV cannot encode {str(path)!r} as MP4 here")
            writer.write(cv2.cvtColor(frame[: size[1], : size[0]], cv2.COLOR_RGB2BGR))
    finally:
        if writer is not None:
            writer.release()
    if not path.is_file() or not path.stat().st_size:
        raise OutputError(f"cannot write {str(path)!r}: nothing was encoded; free some space")
    return path

"""What a dataset is: a numbered sequence of images, wherever they lie, in an order that stays."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

from dff.images import Source

__all__ = ["Dataset"]


class Dataset(ABC):
    """Images by number.

    Attributes:
        kind: "folder", "list", "tar", "video", "remote", "parquet" or "python".
        root: what the paths are relative to.
        paths: (n,) names of the images, as tables show them.
        labels: (n,) class names, None where unknown.
        given: the path that the user named, absolute; None where it was no single path.
    """

    def __init__(
        self, kind: str, root: str, paths: Sequence[str], labels: Sequence[str | None]
    ) -> None:
        self.kind = kind
        self.root = root
        self.paths = paths
        self.labels = labels
        self.given: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @abstractmethod
    def source(self, index: int) -> Source:
        """Return what :func:`dff.images.read_image` takes for an image; called by threads.

        Raises:
            ImageError: the image is not there.
        """

    def file(self, index: int) -> str | None:
        """Return the file whose times tell whether an image has changed; None where none does."""
        return None

    def facts(self) -> Sequence[str]:
        """Return what else tells one version of the dataset from another; on disk, times do."""
        return ()

    def fingerprint(self) -> str:
        """Return a digest of all paths, labels and facts."""
        digest = hashlib.sha256()
        for path, label in zip(self.paths, self.labels, strict=True):
            digest.update(repr((path, label)).encode("utf-8", "surrogateescape"))
        for fact in self.facts():
            digest.update(fact.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

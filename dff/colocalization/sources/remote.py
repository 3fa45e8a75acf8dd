"""Images in a bucket or on another store: what fsspec reads, under its addresses.

``s3://``, ``gs://``, ``hf://``, ``memory://`` and the rest; each store has a package of its own
(s3fs, gcsfs, huggingface_hub, ...), which fsspec names where it is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dff.colocalization.sources.dataset import Dataset
from dff.errors import DFFError, ImageError, RunError, UsageError
from dff.images import IMAGES, Source
from dff.images.addresses import shown

__all__ = ["RemoteDataset", "is_address", "opened", "store_of", "unread", "versions"]

VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "mtime", "created", "size")
"""What stores tell of a file's version, the surest first."""


CREDENTIALS = ("credential", "unauthorized", "expiredtoken", "token has expired")
DENIED = ("denied", "forbidden", "401", "403")
"""What stores say, in lower case: who you are is missing, or you may not."""
HELP = "; give the store's credentials as its own tools take them"


def is_address(path: str) -> bool:
    """Return whether a path is an address, such as ``s3://bucket/photos``."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path) is not None


def store_of(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path on it.

    Raises:
        UsageError: no store answers to such addresses, or its package is missing.
    """
    import fsspec

    if re.match(r"https?://", address, re.IGNORECASE):
        raise UsageError(
            f"{shown(address)} is one address of the web, not a store of images that can be "
            "listed: write the images' addresses into a .txt file, one a line"
        )
    try:
        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot open {shown(address)}: {_reason(error)}") from None
    except Exception as error:
        raise UsageError(_refused(address, error)) from None
    return system, str(path)


def opened(path: str) -> Any:
    """Return a file, local or at an address, opened to read bytes.

    Raises:
        UsageError: its store cannot be opened, or refuses it.
        OSError: a local file cannot.
    """
    if not is_address(path):
        return open(path, "rb")
    system, inner = store_of(path)
    try:
        return system.open(inner, "rb")
    except Exception as error:
        raise UsageError(_refused(path, error, "open")) from None


def versions(addresses: Sequence[str]) -> list[str]:
    """Return what stores tell of the versions of files, those at addresses, in order.

    Raises:
        UsageError: a store refuses it.
    """
    found = []
    for address in addresses:
        if is_address(address):
            system, inner = store_of(address)
            try:
                found.append(_version(system.info(inner)))
            except Exception as error:
                raise UsageError(_refused(address, error, "open")) from None
    return found


class RemoteDataset(Dataset):
    """The images below an address; folders there become labels, as on disk."""

    def __init__(self, address: str) -> None:
        self.system, root = store_of(address)
        files = _listed(self.system, root, address)
        names = {name: name.removeprefix(root).lstrip("/") or name for name in sorted(files)}
        labels = [path.split("/")[0] if "/" in path else None for path in names.values()]
        super().__init__("remote", address, list(names.values()), labels)
        self.files = list(names)
        self.versions = [_version(files[name]) for name in names]

    def source(self, index: int) -> Source:
        try:
            return bytes(self.system.cat_file(self.files[index]))
        except Exception as error:
            raise unread(self.paths[index], error) from None

    def facts(self) -> list[str]:
        return self.versions


def _listed(system: Any, root: str, address: str) -> dict[str, Mapping[str, Any]]:
    try:
        found = system.find(root, detail=True)
    except Exception as error:
        raise UsageError(_refused(address, error)) from None
    if not found:
        raise UsageError(f"there is nothing at {shown(address)}")
    return {
        name: facts
        for name, facts in found.items()
        if os.path.splitext(name)[1].lower() in IMAGES
        and not any(part.startswith(".") for part in name.removeprefix(root).split("/"))
    }


def _version(facts: Mapping[str, Any]) -> str:
    return next((str(facts[name]) for name in VERSIONS if facts.get(name) is not None), "")


def unread(name: str, error: Exception) -> DFFError:
    """Return why an image at an address was not read: its own error, or the end of the run.

    A store that wants credentials has nothing against the image: they are missing, or ran out.
    """
    if not isinstance(error, FileNotFoundError) and _has(error, CREDENTIALS, besides=name):
        return RunError(
            f"cannot read {shown(name)}: {_reason(error)}{HELP}, and start the same command again: "
            "it goes on where it stopped"
        )
    return ImageError(f"cannot read {shown(name)}: {getattr(error, 'strerror', None) or error}")


def _refused(address: str, error: Exception, task: str = "list") -> str:
    """Return why a store did not answer, with what most often helps."""
    denied = isinstance(error, PermissionError) or _has(error, (*CREDENTIALS, *DENIED))
    return f"cannot {task} {shown(address)}: {_reason(error)}{HELP if denied else ''}"


def _has(error: Exception, words: Sequence[str], *, besides: str = "") -> bool:
    text = f"{type(error).__name__} {error}".lower()
    text = text.replace(besides.lower(), "") if besides else text
    return any(word in text for word in words)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

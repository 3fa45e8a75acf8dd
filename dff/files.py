"""Write files whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dff.errors import OutputError

__all__ = ["make_folder", "write_file"]


def make_folder(path: str | Path) -> Path:
    """Create a folder, its parents included, and return it.

    Raises:
        OutputError: it cannot be created, or cannot be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(folder, error) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {str(folder)!r}: permission denied; choose another")
    return folder


def write_file(path: str | Path, content: bytes | str | Callable[[Any], object]) -> Path:
    """Write a file aside and rename it into place, so that it appears whole or not at all.

    `content` is bytes, text (UTF-8), or a function that writes to the open binary file.

    Raises:
        OutputError: the disk is full, the folder is not writable, ...; nothing stays behind.
    """
    path = Path(path)
    aside: str | None = None
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException as error:
        if aside is not None and os.path.exists(aside):
            os.unlink(aside)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise _explained(path, error) from None
        raise
    return path


def _explained(path: Path, error: OSError) -> OutputError:
    advice = {
        errno.ENOSPC: "; free some space, or choose another folder with --out",
        errno.EDQUOT: "; free some space, or choose another folder with --out",
        errno.ENOTDIR: "; a part of the path is a file: choose another folder",
        errno.EEXIST: "; it is a file: choose another folder",
        errno.ENAMETOOLONG: "; choose a shorter name",
    }.get(error.errno or 0, "; choose another folder")
    return OutputError(f"cannot write {str(path)!r}: {error.strerror or error}{advice}")


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    value = os.umask(0)
    os.umask(value)
    return value

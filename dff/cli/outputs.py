"""What a command will write, held against what is there and what it reads, before it begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dff.errors import OutputError
from dff.files import make_folder
from dff.manifest import Manifest

__all__ = ["reserve"]


def reserve(plans: Mapping[Path, Sequence[str]], inputs: Iterable[str | None]) -> None:
    """Refuse what cannot be written, then make the folders: before a model is loaded.

    What a killed process left half-written there is removed.

    Args:
        plans: for each folder the names of the files that the command will write there.
        inputs: all paths that it reads; None and what is no path are passed over.

    Raises:
        OutputError: an output is an input, a file of the user's is in the way, or a folder
            cannot be made.
    """
    read = [path for path in inputs if path and os.path.exists(path)]
    for folder, names in plans.items():
        manifest = Manifest(folder)
        manifest.check(names, read)
        if os.path.realpath(manifest.file) in map(os.path.realpath, read):
            raise OutputError(f"{str(manifest.file)!r} is a record of files, and no input")
    for folder in plans:
        make_folder(folder)
        Manifest(folder).sweep()

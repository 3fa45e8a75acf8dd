"""What a command will write, held against what is there and what it reads, before it begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dff.errors import OutputError
from dff.files import make_folder
from dff.manifest import Manifest

__all__ = ["grouped", "photo_name", "planned", "remove_empty", "reserve"]

_made: list[Path] = []
"""The folders that this command found missing, each before those that it is in."""


def grouped(sources: list[str], out: Path, shared: bool) -> dict[Path, list[str]]:
    """Return the photos whose concepts are found together, by the folder for their results."""
    if shared or len(sources) == 1:
        return {out: sources}
    from dff.images.names import distinct_names

    names = distinct_names(map(photo_name, sources))
    return {out / name: [source] for name, source in zip(names, sources, strict=True)}


def photo_name(source: str) -> str:
    """Return the name that a photo or a video will have."""
    from dff.images import is_video, source_name

    return Path(source).stem if is_video(source) else source_name(source)


def planned(group: list[str], formats: Sequence[str], evidence: bool, check: bool) -> list[str]:
    """Return the names of all files that photos analysed together will become."""
    from dff.explain.saving import output_names
    from dff.images.names import distinct_names

    names = distinct_names(map(photo_name, group))
    files = output_names(names, formats)
    files += [f"{name}_check.png" for name in names if check]
    return [*files, "evidence.json"] if evidence or check else files


def reserve(plans: Mapping[Path, Sequence[str]], inputs: Iterable[str | None]) -> None:
    """Refuse what cannot be written, then make the folders: before a model is loaded.

    What a killed process left half-written there is removed. Of the folders made here, those that
    are empty when the command ends, however it ends, are removed by :func:`remove_empty`.

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
    _made.extend(p for folder in plans for p in (folder, *folder.parents) if not os.path.lexists(p))
    for folder in plans:
        make_folder(folder)
        Manifest(folder).sweep()


def remove_empty() -> None:
    """Remove the folders that :func:`reserve` made and nothing came into."""
    while _made:  # the outer ones were noted after those in them
        with suppress(OSError, ValueError):  # it holds results, or could not be made
            _made.pop(0).rmdir()

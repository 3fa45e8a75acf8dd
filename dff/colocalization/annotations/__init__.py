"""Annotations to measure a run against: COCO JSON, or a folder of Pascal VOC's XML."""

from __future__ import annotations

from pathlib import Path

from dff.colocalization.annotations.coco import read_coco
from dff.colocalization.annotations.records import Known, matched
from dff.colocalization.annotations.voc import read_voc
from dff.errors import UsageError, shortened

__all__ = ["Known", "matched", "read_annotations"]


def read_annotations(path: str | Path) -> list[Known]:
    """Read a COCO JSON file, or a folder of Pascal VOC's XML files (or its parent).

    Raises:
        UsageError: it is neither, holds no annotation, or an entry cannot be.
    """
    path = Path(path)
    if path.is_dir():
        folder = path / "Annotations" if (path / "Annotations").is_dir() else path
        known = [read_voc(file) for file in sorted(folder.glob("*.xml"))]
    else:
        known = read_coco(path)
    known = [annotated for annotated in known if annotated.boxes]
    if not known:
        raise UsageError(
            f"there is no annotation in {shortened(path)!r}; expected COCO JSON, or a folder of "
            "VOC XML"
        )
    return known

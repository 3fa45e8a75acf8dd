"""Photos as a page, and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from dff.explain.drawing import Drawing
from dff.explain.pages.photos import photo_view
from dff.explain.photo import Photo, Target, clips_of
from dff.explain.questions.check import Answer
from dff.rendering.files import picture_bytes
from dff.report import frame, photo_page

__all__ = ["Viewable"]

NOTEBOOK_SIDE, NOTEBOOK_PHOTOS = 640, 8


class Viewable:
    """What shows itself: something that has photos.

    Attributes:
        photos: (n,) the record of each photo.
    """

    photos: tuple[Photo, ...]

    def to_html(
        self,
        *,
        target: Target | None = None,
        top_k: int = 3,
        answers: Sequence[Sequence[Answer]] = (),
    ) -> str:
        """Return a page to explore, in one piece: it opens from disk, and needs no server.

        Args:
            target: class of contributions and Grad-CAM; None is each photo's likeliest.
            top_k: most labels a concept.
            answers: for each photo or clip what else was asked: evidence, checks.

        Raises:
            UsageError: no such class.
            ModelError: a target, of a model without a head.
        """
        view = photo_view(self.photos, target=target, top_k=top_k, answers=answers)
        return photo_page(view)

    def _repr_html_(self) -> str:
        view = photo_view(self.photos[:NOTEBOOK_PHOTOS], longest=NOTEBOOK_SIDE)
        return frame(photo_page(view), title=view.title)

    def _repr_png_(self) -> bytes:
        return picture_bytes(Drawing(clips_of(self.photos)[0]).overlay())

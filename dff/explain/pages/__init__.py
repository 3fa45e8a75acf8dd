"""What a page, or a notebook, shows of photos."""

from __future__ import annotations

from dff.explain.pages.photos import photo_view
from dff.explain.pages.viewable import NOTEBOOK_SIDE, Viewable

__all__ = ["NOTEBOOK_SIDE", "Viewable", "photo_view"]

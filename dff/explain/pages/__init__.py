"""What a page, or a notebook, shows of photos."""

from __future__ import annotations

from dff.explain.pages.photos import photo_view
from dff.explain.pages.viewable import Viewable

__all__ = ["Viewable", "photo_view"]

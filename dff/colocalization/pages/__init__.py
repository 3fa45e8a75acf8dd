"""The page of a run: from what is on disk to :mod:`dff.report`."""

from __future__ import annotations

from dff.colocalization.pages.view import run_view, write_report

__all__ = ["run_view", "write_report"]

"""The version of the installed package, read from its metadata once."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("deep-feature-factorization")

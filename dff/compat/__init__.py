"""pytorch-grad-cam's two calls for concepts, as its tutorial writes them.

- :class:`DeepFeatureFactorization`: the concepts of a batch.
- :func:`show_factorization_on_image`: their picture.
"""

from __future__ import annotations

from dff.compat.factorization import DeepFeatureFactorization
from dff.compat.picture import show_factorization_on_image

__all__ = ["DeepFeatureFactorization", "show_factorization_on_image"]

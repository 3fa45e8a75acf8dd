"""Names that code for pytorch-grad-cam's AblationCAM imports.

:class:`~gradcam.AblationCAM` takes one as ``ablation_layer`` and does without: how a layer's output
reads says how its channels are set to 0.
"""

from __future__ import annotations

__all__ = ["AblationLayer", "AblationLayerFasterRCNN", "AblationLayerVit"]


class AblationLayer:
    """Of layers that put out maps."""


class AblationLayerVit(AblationLayer):
    """Of layers that put out tokens."""


class AblationLayerFasterRCNN(AblationLayer):
    """Of layers that put out a pyramid of maps."""

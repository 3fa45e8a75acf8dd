"""Shows which concepts a vision model finds in an image, where each is, and what each says.

    import dff
    result = dff.Explainer("resnet50")("photo.jpg", concepts=5)
    result.overlay()

Names are imported when they are first used, so that ``import dff`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dff.activations import IMAGE, Arguments, Fixed, Given, Tail
    from dff.colocalization import MaskOptions, Run, RunOptions, colocalize
    from dff.comparing import MethodComparison, compare
    from dff.compat import DeepFeatureFactorization, show_factorization_on_image
    from dff.concepts import ConceptBank
    from dff.errors import DFFError
    from dff.explain import Comparison, Explainer, Explanation, Sweep
    from dff.images import Preprocessing, read_image
    from dff.models import list_models, load_model
    from dff.nmf import NMF, SemiNMF
    from dff.scoring import ConceptModule
    from dff.version import __version__

__all__ = [
    "IMAGE",
    "NMF",
    "Arguments",
    "Comparison",
    "ConceptBank",
    "ConceptModule",
    "DFFError",
    "DeepFeatureFactorization",
    "Explainer",
    "Explanation",
    "Fixed",
    "Given",
    "MaskOptions",
    "MethodComparison",
    "Preprocessing",
    "Run",
    "RunOptions",
    "SemiNMF",
    "Sweep",
    "Tail",
    "__version__",
    "colocalize",
    "compare",
    "list_models",
    "load_model",
    "read_image",
    "show_factorization_on_image",
]

_HOMES = {
    "Arguments": "dff.activations",
    "Comparison": "dff.explain",
    "ConceptBank": "dff.concepts",
    "ConceptModule": "dff.scoring",
    "DFFError": "dff.errors",
    "DeepFeatureFactorization": "dff.compat",
    "Explainer": "dff.explain",
    "Explanation": "dff.explain",
    "Fixed": "dff.activations",
    "Given": "dff.activations",
    "IMAGE": "dff.activations",
    "NMF": "dff.nmf",
    "Preprocessing": "dff.images",
    "MaskOptions": "dff.colocalization",
    "MethodComparison": "dff.comparing",
    "Run": "dff.colocalization",
    "RunOptions": "dff.colocalization",
    "SemiNMF": "dff.nmf",
    "Sweep": "dff.explain",
    "Tail": "dff.activations",
    "__version__": "dff.version",
    "colocalize": "dff.colocalization",
    "compare": "dff.comparing",
    "list_models": "dff.models",
    "load_model": "dff.models",
    "read_image": "dff.images",
    "show_factorization_on_image": "dff.compat",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dff' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

"""Methods beside each other: what each says of a photo, a row a method and a column a class.

- :func:`compare`: photos, methods and classes to a :class:`MethodComparison`.
- :class:`MethodComparison`: the maps, one panel, files.
- :func:`known_methods`: concepts, the CAM family, and Captum's attributions, by name.

What two photos have in common is another question: :meth:`dff.Explanation.compare`.
"""

from __future__ import annotations

from dff.comparing.comparison import MethodComparison
from dff.comparing.names import check_methods, check_settings, known_methods
from dff.comparing.records import MethodRow, PhotoRows
from dff.comparing.running import compare

__all__ = [
    "MethodComparison",
    "MethodRow",
    "PhotoRows",
    "check_methods",
    "check_settings",
    "compare",
    "known_methods",
]

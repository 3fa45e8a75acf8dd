"""Where a dataset's images come from: one protocol, a file for each kind of source.

- :mod:`~dff.colocalization.sources.dataset`: the protocol: :class:`Dataset`.
- ``listed`` (folders, lists), ``tars``, ``video``, ``python``: the kinds.
- ``opening``: from what a user names to one of them.
- ``stamps``: has an image changed since it was read?
- ``reader``: threads that decode ahead.
"""

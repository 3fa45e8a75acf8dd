"""A run on disk: its folder, its tables, and the reading of a finished one.

- :mod:`~dff.colocalization.run.folder`: settings, state, manifest and lock: what is done, what is
  damaged, what is the run's own.
- ``tables``, ``coco``: what the chunks' parts become.
- ``finished``: :class:`Run`, a finished run opened to be read.
"""

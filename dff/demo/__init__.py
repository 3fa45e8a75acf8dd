"""Embedded demo: procedural creatures with known parts, and a model trained on them."""

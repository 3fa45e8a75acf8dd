"""Shows which concepts a vision model finds in an image (filled in by dff.explain)."""

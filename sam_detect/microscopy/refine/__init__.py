"""Existing annotations redrawn along the edges of their objects: ``objects`` (one picture),
``files`` (the whole file in and out)."""

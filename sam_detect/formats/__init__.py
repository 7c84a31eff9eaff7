"""File formats of annotated objects: one module each, which writes and reads it.

All of them work on :class:`~sam_detect.types.Annotation` alone, and open no file: ``encode``
gives bytes, ``decode`` takes what was read and checked for its size. What cannot be used of a file
is left out with a line in ``problems``. Coordinates have pixel ``i`` cover ``[i, i + 1]``, in
memory and in every format here.
"""

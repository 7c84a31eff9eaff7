"""Detections out: JSON, COCO, CSV and pictures.

Each sink is named in :mod:`sam_detect.registry` and made as
``Sink(output, multiple=..., inputs=[...])``: where to write, whether several pictures will come,
and the pictures being read, which no sink overwrites.
"""

from sam_detect.outputs._atomic import write_atomically
from sam_detect.outputs._pictures import write_image

__all__ = ["write_atomically", "write_image"]

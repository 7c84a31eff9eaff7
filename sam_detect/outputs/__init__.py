"""Outputs: JSON, COCO, YOLO, CSV, overlays, annotated videos.

Each sink is named in :mod:`sam_detect.registry` and made as
``Sink(output, multiple=..., inputs=[...])``: where to write, whether several images will come,
and the images being read, which no sink overwrites.
"""

from sam_detect.outputs.files import write_atomically, write_image

__all__ = ["write_atomically", "write_image"]
